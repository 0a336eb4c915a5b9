"""Create label requests for some of the window's predictions."""

from __future__ import annotations

from datetime import UTC, datetime

from perpetune.loop.label_rule import label_rule
from perpetune.monitoring.label_sampling import candidates, choose, uniform_lot
from perpetune.monitoring.window import Window
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.label_requests import drawn_before, open_requests, request_labels
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace


def ask_for_labels(
    workspace: Workspace, champion: Version, window: Window, random_ratio: float | None = None, urgent: int = 0
) -> int:
    """Request labels until `watch.label_requests` requests of the champion are open; returns how many were added.

    `random_ratio` of them are drawn at random; None for `watch.random_label_ratio`. With `urgent`, so many are drawn by
    lot instead, whatever is open: they are labelled first.
    """
    params = workspace.params
    log = open_log(workspace.settings.prediction_log)
    try:
        if urgent:
            ids = [row.id for row in window.predictions]
            lot = uniform_lot(ids, drawn_before(log, ids), urgent, params.split.seed)
            return request_labels(log, lot, datetime.now(UTC), urgent=True)
        still_open = {
            each.request_id
            for each in open_requests(log, champion.task, version=champion.version, rule=label_rule(workspace))
        }
        missing = params.watch.label_requests - len(still_open)
        if missing <= 0:
            return 0
        known = still_open | {row.id for row in window.predictions if row.label is not None}
        ratio = params.watch.random_label_ratio if random_ratio is None else random_ratio
        chosen = choose(candidates(window), known, missing, ratio, params.split.seed)
        return request_labels(log, chosen, datetime.now(UTC))
    finally:
        log.dispose()

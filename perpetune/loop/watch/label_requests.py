"""Ask people for the labels of some of the window's requests."""

from __future__ import annotations

from datetime import UTC, datetime

from perpetune.monitoring.label_sampling import candidates, choose
from perpetune.monitoring.window import Window
from perpetune.prediction_log.label_requests import ask, open_requests
from perpetune.prediction_log.log import open_log
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace


def ask_for_labels(workspace: Workspace, champion: Version, window: Window, random_share: float | None = None) -> int:
    """Ask for as many labels of the champion's answers as `watch.label_requests` says, less those that are still open.

    `random_share` of them are drawn by chance, None for `watch.random_label_ratio`. Returns how many were asked for anew.
    """
    params = workspace.params
    log = open_log(workspace.settings.prediction_log)
    try:
        still_open = {each.request_id for each in open_requests(log, champion.task, version=champion.version)}
        missing = params.watch.label_requests - len(still_open)
        if missing <= 0:
            return 0
        known = still_open | {row.id for row in window.predictions if row.label is not None}
        by_chance = params.watch.random_label_ratio if random_share is None else random_share
        chosen = choose(candidates(window), known, missing, by_chance, params.split.seed)
        return ask(log, chosen, datetime.now(UTC))
    finally:
        log.dispose()

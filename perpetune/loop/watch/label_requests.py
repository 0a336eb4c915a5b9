"""Create label requests for some of the champion's answers: in doubt, at once, or a few each day."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine

from perpetune.loop.label_rule import label_rule
from perpetune.monitoring.label_sampling import Candidate, candidates, draw, draw_key
from perpetune.monitoring.window import Window
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.delays import COMPLETE
from perpetune.prediction_log.labels.requests import (
    drawn_before,
    newest_draw,
    open_requests,
    request_labels,
    undrawn,
    undrawn_answers,
)
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace


def ask_for_labels(
    workspace: Workspace, champion: Version, window: Window, random_ratio: float | None = None, urgent: int = 0
) -> int:
    """Request labels until `watch.label_requests` requests of the champion are open; returns how many were added.

    `random_ratio` of them are drawn at random; None for `watch.random_label_ratio`. With `urgent`, so many are drawn by
    lot instead, less the urgent ones that are still open: they are labelled first.
    """
    params = workspace.params
    log = open_log(workspace.settings.prediction_log)
    try:
        still_open = open_requests(log, champion.task, version=champion.version, rule=label_rule(workspace))
        waiting = sum(each.urgent for each in still_open) if urgent else len(still_open)
        count = (urgent or params.watch.label_requests) - waiting
        ratio = params.watch.random_label_ratio if random_ratio is None else random_ratio
        ids = [row.id for row in window.predictions]
        drawn, left = drawn_before(log, ids), undrawn(log, ids)
        found = candidates(window, {name: left[name] for name in ids if name not in drawn})
        return _draw(workspace, log, found, count, 1.0 if urgent else ratio, urgent=urgent > 0)
    finally:
        log.dispose()


def lot_has_come(workspace: Workspace, champion: Version) -> bool:
    """Whether so many urgent labels of the champion have come that the lot counts."""
    log = open_log(workspace.settings.prediction_log)
    try:
        still_open = open_requests(log, champion.task, version=champion.version, rule=label_rule(workspace))
    finally:
        log.dispose()
    return sum(each.urgent for each in still_open) <= (1 - COMPLETE) * workspace.params.watch.urgent_labels


def draw_standing_lot(workspace: Workspace, champion: Version) -> int:
    """Draw `watch.lot_per_day` of the champion's answers since the last draw, by lot; returns how many were added.

    It draws whole requests: at five a day, one each time that almost five hours have passed.
    """
    log, rule = open_log(workspace.settings.prediction_log), label_rule(workspace)
    try:
        since = newest_draw(log, champion.task, champion.version)
        answers = undrawn_answers(log, champion.task, champion.version, since, rule)
        if not answers:
            return 0
        days = (datetime.now(UTC) - (since or answers[0][1])).total_seconds() / 86_400
        still_open = open_requests(log, champion.task, version=champion.version, rule=rule)
        most = workspace.params.watch.label_requests - len(still_open)
        count = min(int(days * workspace.params.watch.lot_per_day), most)
        left = undrawn(log, [request_id for request_id, _, _ in answers])
        found = [Candidate(name, "", None, 0.0, left[name], labelled) for name, _, labelled in answers]
        return _draw(workspace, log, found, count, 1.0)
    finally:
        log.dispose()


def _draw(
    workspace: Workspace, log: Engine, found: list[Candidate], count: int, random_ratio: float, *, urgent: bool = False
) -> int:
    """Draw from the candidates and request the labels; returns how many are not known yet."""
    now = datetime.now(UTC)
    lot = draw(found, count, random_ratio, draw_key(workspace.params.split.seed, now))
    request_labels(log, lot.drawn, now, urgent=urgent, undrawn=lot.undrawn)
    labelled = {each.request_id for each in found if each.labelled}
    return sum(each.request_id not in labelled for each in lot.drawn)

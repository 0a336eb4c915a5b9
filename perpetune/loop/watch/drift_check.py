"""The drift part of a check: which requests are tested, at which level, and what is kept for the next check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from perpetune.model.weights import must_be_fetched, resolve, weights_digest
from perpetune.monitoring.drift import NEWEST, Span, draw_report, drift_report
from perpetune.monitoring.drift_state import DRIFT, DriftState, after_test, from_text, inherited, level_of_test
from perpetune.monitoring.input_drift import MOST_ROWS, InputRow, input_row
from perpetune.monitoring.window import Window
from perpetune.policy.retraining import DriftEvidence
from perpetune.prediction_log.answers.embeddings import EmbeddedRequest, embedded_requests, rounded
from perpetune.prediction_log.database import open_log
from perpetune.quality.features import features_of
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace

WEEK = timedelta(days=7)
WEEKLY = "requests of a week"
STALE = timedelta(hours=1)  # behind the newest request: embeddings are no longer computed
SEVERAL = 1.5  # windows in a week, from which its requests are tested beside the newest
RECENT = 50  # versions, one of which spent the budget last, unless the previous champion did


def check_drift(
    workspace: Workspace,
    champion: Version,
    window: Window,
    before: DriftState,
    html: Path,
    now: datetime,
    notes: Sequence[str] = (),
) -> tuple[DriftEvidence, DriftState]:
    """Test the window's traffic if it is time, and write the report with the notes; else repeat what the last test found."""
    params = workspace.params.watch
    level = level_of_test(before, now, params.drift_alarms_per_year, _new_rows(window, before), params.min_rows)
    if level is None:
        assert before.last is not None, "the first test waits for nothing"
        draw_report(window, params, html, before.last, notes)
        return before.last, before
    spans = _spans(workspace, champion, window, now)
    with_texts = workspace.params.log.retention_days is None  # a report stays when requests are deleted
    found = drift_report(window, params, html, spans=spans, level=level, now=now, with_texts=with_texts, notes=notes)
    return found, after_test(before, now, params.drift_alarms_per_year, level, found)


def drift_state(champion: Version) -> DriftState:
    """What the tests of the champion have kept; before its first, the budget that the versions before it have left."""
    if DRIFT in champion.tags:
        return from_text(champion.tags[DRIFT])
    recent, _ = registry.newest(champion.task, RECENT)
    previous = registry.find(champion.task, "previous")  # may be older
    others = (version.tags.get(DRIFT) for version in (*recent, *filter(None, [previous])))
    return inherited(from_text(text) for text in others if text is not None)


def _new_rows(window: Window, before: DriftState) -> int:
    tested = before.last.tested if before.last is not None else None
    return sum(tested is None or row.time > tested for row in window.predictions)


def _spans(workspace: Workspace, champion: Version, window: Window, now: datetime) -> list[Span]:
    """The newest requests with an embedding, and those of a week if they are many more; [] if there are too few."""
    encoder, params = workspace.params.evaluate.encoder, workspace.params.watch
    if encoder is None or must_be_fetched(encoder, workspace.assets):
        return []
    name = weights_digest(resolve(encoder, workspace.assets, setting="evaluate.encoder"))[:16]
    log = open_log(workspace.settings.prediction_log)
    try:
        newest, week = embedded_requests(
            log, champion.task, champion.version, name, now - WEEK, newest=params.window, spread=MOST_ROWS
        )
    finally:
        log.dispose()
    if len(newest) < params.min_rows or newest[-1].time < window.predictions[-1].time - STALE:
        return []
    texts = [row.input for row in window.reference]
    features = features_of(texts, encoder, workspace.assets, workspace.home)
    if not features.are_embeddings:
        return []
    vectors = rounded(features.vectors)
    known = [input_row(row, vector) for row, vector in zip(window.reference, vectors, strict=True)]
    spans = [Span(NEWEST, _rows(newest), known)]
    return [*spans, Span(WEEKLY, _rows(week), known)] if len(week) > SEVERAL * len(newest) else spans


def _rows(requests: Sequence[EmbeddedRequest]) -> list[InputRow]:
    return [input_row(each, each.vector) for each in requests]

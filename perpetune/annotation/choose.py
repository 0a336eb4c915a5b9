"""Which rows are most worth a look: those whose label is probably wrong, and requests that the monitor or a person asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from sqlalchemy import Engine

from perpetune.annotation.records import AnnotationTask, Subject, Suggestion
from perpetune.curation.readers.unlabelled import UnlabelledRows
from perpetune.curation.rows.sources import IN_DOUBT, TRAFFIC
from perpetune.curation.suspects import SUSPECTS, Suspect
from perpetune.errors import PerpetuneError
from perpetune.monitoring.label_sampling import Candidate, draw, draw_key
from perpetune.monitoring.window import Window, current_frame
from perpetune.prediction_log.labels.requests import LabelRequest, drawn_before, open_requests, request_labels, undrawn
from perpetune.prediction_log.labels.rule import LabelRule
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Example, Message, Prediction

_DRIFTED = "unlike the training data"


@dataclass(frozen=True)
class Sampling:
    """How requests are chosen if fewer than `requests` are open, with the ratios of random and of unlike ones."""

    requests: int
    window: int
    random_ratio: float
    drift_ratio: float
    seed: int
    kind: Literal["classification", "generation"]


def suspects(workspace: Path, limit: int) -> list[AnnotationTask]:
    """The rows whose label is most probably wrong; none if the stage `label_errors` has not run."""
    path = workspace / SUSPECTS
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        return [_suspect(line, path) for line, _ in zip(lines, range(limit), strict=False)]


def _suspect(line: str, path: Path) -> AnnotationTask:
    try:
        found = Suspect.model_validate_json(line)
    except ValidationError as fault:
        raise PerpetuneError(f"a suspect cannot be read: {fault.errors()[0]['msg']}", where=str(path)) from None
    is_traffic = found.source in (TRAFFIC, IN_DOUBT)
    subject = Subject(
        kind="request" if is_traffic else "row",
        id=found.id.removeprefix(f"{found.source}:") if is_traffic else found.id,
        source="" if is_traffic else found.source,
        label=found.label,
    )
    return AnnotationTask(
        subject=subject,
        text=found.input,
        why=f"The label is {found.label!r}, and {found.why}.",
        suggestion=Suggestion(label=found.suggested, score=found.suggested_probability),
    )


def new_rows(read: UnlabelledRows) -> list[AnnotationTask]:
    """Rows without a label, which come back as new rows of the inbox."""
    return [
        AnnotationTask(
            subject=Subject(kind="new", id=row.id, source=row.source, row=row),
            text=_transcript(row.messages) or row.input,
            why="It has no label yet.",
        )
        for row in read.rows
    ]


def requests(log: Engine, task: str, rule: LabelRule, unlike: Iterable[str] = ()) -> list[AnnotationTask]:
    """The open label requests, of which some were chosen since they are `unlike` the training data.

    A request that was drawn at random has no suggestion, because its label measures the model that would suggest it.
    """
    drifted = set(unlike)
    conversations = {row.id: row.messages for row in recent_predictions(log, task, limit=None, rule=rule)}
    return [
        _request(each, conversations.get(each.request_id, ()), drifted) for each in open_requests(log, task, rule=rule)
    ]


def _request(each: LabelRequest, conversation: tuple[Message, ...], unlike: set[str]) -> AnnotationTask:
    return AnnotationTask(
        subject=Subject(kind="request", id=each.request_id),
        text=_transcript(conversation) or each.input,
        why=_why(each, unlike),
        suggestion=None
        if each.why in ("lot", "disagreement")
        else Suggestion(label=each.answer, score=each.confidence),
    )


def _why(each: LabelRequest, unlike: set[str]) -> str:
    if each.why == "lot":
        return "It was drawn at random."
    if each.why == "disagreement":
        return "Two versions answer differently."
    if each.request_id in unlike:
        return f"It is {_DRIFTED}."
    return "The model is unsure." if each.confidence is None else f"The model is unsure ({each.confidence:.0%})."


def _transcript(messages: Sequence[Message]) -> str | None:
    """The turns of a conversation as text; None if there is only one, besides the instruction."""
    turns = [message for message in messages if message.role != "system"]
    if len(turns) < 2:
        return None
    return "\n\n".join(f"{turn.role}: {turn.content or json.dumps(turn.tool_calls)}" for turn in turns)


def ask(log: Engine, task: str, train: Sequence[Example], sampling: Sampling, rule: LabelRule) -> list[str]:
    """Request labels until `sampling.requests` are open; returns the ids of those that are unlike the training data.

    The answers to choose from are the newest `sampling.window`.
    """
    missing = sampling.requests - len(open_requests(log, task, rule=rule))
    recent = recent_predictions(log, task, limit=sampling.window, rule=rule)
    if missing <= 0 or not recent:
        return []
    unsure, unlike = _parts(recent, train, sampling)
    ids, now = [row.id for row in recent], datetime.now(UTC)
    drawn, left = drawn_before(log, ids), undrawn(log, ids)
    found = [
        Candidate(row.id, row.input, label, unsure[row.id] + unlike[row.id], left[row.id], row.label is not None)
        for row in recent
        if row.id not in drawn
        for label in [row.output.strip() if sampling.kind == "classification" else None]
    ]
    lot = draw(found, missing, sampling.random_ratio, draw_key(sampling.seed, now))
    request_labels(log, lot.drawn, now, undrawn=lot.undrawn)
    return [
        each.request_id
        for each in lot.drawn
        if each.why == "doubt" and unlike[each.request_id] > unsure[each.request_id]
    ]


def _parts(
    recent: Sequence[Prediction], train: Sequence[Example], sampling: Sampling
) -> tuple[dict[str, float], dict[str, float]]:
    """What doubt is made of: how unsure the model is, and how unlike the training data the input is; 1 on average in all."""
    unseen = current_frame(Window(recent, train, _NO_ANSWERS, sampling.kind))["unseen word ratio"] if train else ()
    doubts = {row.id: 0.0 if row.confidence is None else 1 - row.confidence for row in recent}
    ratios = dict.fromkeys(doubts, 0.0) | dict(zip(doubts, map(float, unseen), strict=False))
    left = max(1 - sampling.random_ratio - sampling.drift_ratio, 0.0)
    return _scaled(doubts, left), _scaled(ratios, sampling.drift_ratio)


def _scaled(values: dict[str, float], mean: float) -> dict[str, float]:
    total = sum(values.values())
    return {name: mean * len(values) * value / total if total else 0.0 for name, value in values.items()}


_NO_ANSWERS: Mapping[str, tuple[str, float | None]] = {}

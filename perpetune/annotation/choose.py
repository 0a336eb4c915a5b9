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
from perpetune.curation.sources import IN_DOUBT, TRAFFIC
from perpetune.curation.suspects import SUSPECTS, Suspect
from perpetune.errors import PerpetuneError
from perpetune.monitoring.label_sampling import Candidate, choose
from perpetune.monitoring.window import Window, current_frame
from perpetune.prediction_log.hash_sampling import is_sampled
from perpetune.prediction_log.label_requests import Drawn, LabelRequest, open_requests, request_labels
from perpetune.prediction_log.label_rule import LabelRule
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
        suggestion=None if each.why == "lot" else Suggestion(label=each.answer, score=each.confidence),
    )


def _why(each: LabelRequest, unlike: set[str]) -> str:
    if each.why == "lot":
        return "It was drawn at random."
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

    The answers to choose from are the newest `sampling.window`. What is not drawn at random counts as uncertain: it is
    trained on, and judges no version.
    """
    still_open = {each.request_id for each in open_requests(log, task, rule=rule)}
    missing = sampling.requests - len(still_open)
    recent = recent_predictions(log, task, limit=sampling.window, rule=rule)
    if missing <= 0 or not recent:
        return []
    known = still_open | {row.id for row in recent if row.label is not None}
    unlike = _unlike(recent, train, known, round(missing * sampling.drift_ratio), sampling)
    unsure = [_candidate(row, 1 - (row.confidence if row.confidence is not None else 1.0), sampling) for row in recent]
    chosen = choose(unsure, known | set(unlike), missing - len(unlike), _of_the_rest(sampling), sampling.seed)
    request_labels(log, [*chosen, *(Drawn(id, "doubt") for id in unlike)], datetime.now(UTC))
    return unlike


def _of_the_rest(sampling: Sampling) -> float:
    """The ratio of random ones among those that are not chosen as unlike."""
    return min(1.0, sampling.random_ratio / max(1 - sampling.drift_ratio, 1e-9))


def _unlike(
    recent: Sequence[Prediction], train: Sequence[Example], known: set[str], count: int, sampling: Sampling
) -> list[str]:
    """The ids of those with most words that no training row has. What is reserved for the random ones is left alone."""
    if not train or not count:
        return []
    ratios = current_frame(Window(recent, train, _NO_ANSWERS, sampling.kind))["unseen word ratio"]
    ratio = _of_the_rest(sampling)
    free = [
        _candidate(row, float(unseen), sampling)
        for row, unseen in zip(recent, ratios, strict=True)
        if unseen > 0 and not is_sampled(f"{sampling.seed} {row.id}", ratio)
    ]
    return [each.request_id for each in choose(free, known, count, 0.0, sampling.seed)]


def _candidate(row: Prediction, uncertainty: float, sampling: Sampling) -> Candidate:
    label = row.output.strip() if sampling.kind == "classification" else None
    return Candidate(row.id, row.input, label, uncertainty)


_NO_ANSWERS: Mapping[str, tuple[str, float | None]] = {}

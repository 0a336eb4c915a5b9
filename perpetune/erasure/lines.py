"""Objects in the workspace's files of JSON Lines, and whether they are about an erased row."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from perpetune.annotation.records import Annotation
from perpetune.curation.hosted.matching import StoredAnswer
from perpetune.curation.quarantine import Quarantined
from perpetune.curation.rows.sources import TRAFFIC
from perpetune.curation.text import fingerprint, normalised
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Targets
from perpetune.records import Example, Message, Prediction

_ROW_FIELDS = frozenset({"example", "raw", "chosen", "prompt", "input", "id", "request_id"})
_ANSWER_FIELDS = frozenset({"conversation", "turns", "rows"})
_WAITING = ("feedback", "shadow")
"""What else than a prediction waits in the gateway's spool."""


def example_of(value: dict[str, Any]) -> Example | None:
    """The example that a JSON object is or, as a quarantined row or a waiting request, holds."""
    try:
        if value.keys() == {"prediction"}:
            return _requested(Prediction.model_validate(value["prediction"]))
        return Quarantined.model_validate(value).example if "example" in value else Example.model_validate(value)
    except ValidationError:
        return None


def _requested(prediction: Prediction) -> Example:
    return Example(
        input=prediction.input,
        output=prediction.output,
        id=prediction.id,
        group=prediction.group or fingerprint(normalised(prediction.input)),
        source=TRAFFIC,
        messages=prediction.messages,
    )


def is_erased(value: dict[str, Any], targets: Targets, scrubber: Scrubber) -> bool:
    """Whether the object is about a row that is to be erased.

    It is the row itself, with or without a reason or votes beside it, an annotation, a preference, a recorded answer, a
    cached answer of a model, or names its id.
    """
    row = example_of(value)
    if row is not None:
        return targets.holds(row)
    if "asked" in value and "answer" in value:
        # Lines of before rows were noted may be about any row. It is a cache.
        return value.get("row") is None or value["row"] in targets.hashes or scrubber.holds(value)
    if "subject" in value and (annotation := _annotation(value)):
        return _is_annotation_of(annotation, targets) or scrubber.holds(value)
    if "output" in value and not _ANSWER_FIELDS.isdisjoint(value) and (answer := _hosted(value)):
        return answer.belongs_to(targets.names, targets.turns) or scrubber.holds(value)
    for waiting in _WAITING:
        if value.keys() == {waiting} and isinstance(value[waiting], dict):
            return value[waiting].get("request_id") in targets.ids or scrubber.holds(value)
    if _ROW_FIELDS.isdisjoint(value):
        return False
    like = _row_like(value)
    return (like is not None and targets.holds(like)) or targets.is_named(value) or scrubber.holds(value)


def _annotation(value: dict[str, Any]) -> Annotation | None:
    try:
        return Annotation.model_validate(value)
    except ValidationError:
        return None


def _is_annotation_of(annotation: Annotation, targets: Targets) -> bool:
    subject = annotation.subject
    if subject.row is not None and targets.holds(subject.row):
        return True
    said = Example(input=annotation.text, output="", id="", group="", source=subject.source)
    return targets.holds(said) or targets.is_named({"id": subject.id, "source": subject.source or TRAFFIC})


def _hosted(value: dict[str, Any]) -> StoredAnswer | None:
    try:
        return StoredAnswer.model_validate(value)
    except ValidationError:
        return None


def _row_like(value: dict[str, Any]) -> Example | None:
    """What the object says of a row: rows with votes and confidences, suspects, label requests."""
    if not isinstance(value.get("input"), str):
        return None
    texts = {name: str(value.get(name) or "") for name in ("output", "id", "group", "source")}
    try:
        messages = tuple(map(Message.model_validate, value.get("messages") or ()))
    except (ValidationError, TypeError):
        messages = ()
    return Example(input=value["input"], messages=messages, **texts)


def without_texts(value: dict[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    """The object with its texts scrubbed. An example is another row, whose words are its own: only what is beside it."""
    if example_of(value) is None:
        return dict(scrubber.value(value))
    detail = value.get("detail")
    return {**value, "detail": scrubber.text(detail)} if isinstance(detail, str) and "example" in value else value

"""Argilla's records as JSON: `dataset.records.from_json` imports them, and `to_json` exports them with responses.

https://docs.argilla.io/latest/how_to_guides/import_export/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from perpetune.annotation.records import Annotation, AnnotationTask, Subject
from perpetune.curation.readers.row import InvalidRow, time_of

QUESTION, SUBJECT = "answer", "perpetune"


def record_of(task: AnnotationTask) -> dict[str, Any]:
    """The record, with the field `input`, the question `answer` and the suggestion; metadata are texts."""
    subject = task.subject.model_dump_json(exclude_defaults=True)
    found: dict[str, Any] = {
        "id": task.subject.key,
        "fields": {"input": task.text},
        "metadata": {"why": task.why, SUBJECT: subject},
        "suggestions": {},
        "responses": {},
    }
    if task.suggestion:
        value = {"value": task.suggestion.label, "score": task.suggestion.score, "agent": "perpetune"}
        found["suggestions"] = {QUESTION: value}
    return found


def is_record(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("fields"), Mapping) and "responses" in value


def annotations_of(record: Mapping[str, Any]) -> Iterator[Annotation]:
    """The submitted responses of a record; of records that are not ours none."""
    subject = subject_of(record)
    responses = record.get("responses")
    given = responses.get(QUESTION) if isinstance(responses, Mapping) else None
    if subject is None or not isinstance(given, list):
        return
    for number, each in enumerate(given):
        value = each.get("value")
        if each.get("status", "submitted") == "submitted" and isinstance(value, str) and value.strip():
            yield Annotation(
                subject=subject,
                text=str(record["fields"].get("input", "")),
                label=value.strip(),
                annotator=str(each.get("user_id") or f"annotator {number + 1}"),
                time=_time(record),
            )


def subject_of(record: Mapping[str, Any]) -> Subject | None:
    try:
        return Subject.model_validate(json.loads(record["metadata"][SUBJECT]))
    except (KeyError, TypeError, ValueError, ValidationError):
        return None


def _time(record: Mapping[str, Any]) -> Any:
    try:
        return time_of(record, "updated_at")
    except InvalidRow:
        return None

"""Exporting label requests to a JSONL file, and importing the labels as feedback."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.jsonl_file import jsonl_table
from perpetune.curation.readers.row import InvalidRow
from perpetune.curation.readers.table import Row, UnreadableRow
from perpetune.curation.text import shortened
from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.prediction_log.labels.requests import LabelRequest
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.redaction import Redactor
from perpetune.prediction_log.writes import UnknownRequest, add_feedback
from perpetune.records import Feedback


@dataclass(frozen=True)
class ImportedLabels:
    """Counts of an import: labels stored, rows with an empty label, and rejected rows."""

    labels: int
    empty: int
    rejected: tuple[Rejected, ...]


def write_requests(path: Path, requests: Iterable[LabelRequest]) -> int:
    """Write one request a line, with an empty `label`; returns the count. Raises PerpetuneError if it cannot."""
    lines = [json.dumps({**asdict(request), "label": ""}, ensure_ascii=False) + "\n" for request in requests]
    try:
        write_atomic(path, "".join(lines))
    except OSError as fault:
        raise PerpetuneError(f"the file cannot be written: {fault.strerror}", where=str(path)) from None
    return len(lines)


def import_labels(log: Engine, path: Path, redactor: Redactor | None, rule: LabelRule = ANY_LABEL) -> ImportedLabels:
    """Store the labels of a JSONL file (`request_id` and `label` in each row) as feedback, with redaction if enabled.

    Labels that the rule refuses are rejected.

    Invalid rows are rejected one by one, and importing a file twice changes nothing. Raises PerpetuneError if the file
    cannot be read.
    """
    labels, empty, rejected = 0, 0, []
    for row in jsonl_table(_bytes(path), path).rows:
        try:
            feedback = _feedback(row)
            if feedback is None:
                empty += 1
                continue
            _check(feedback, rule)
            _store(log, redactor.row(feedback) if redactor else feedback)
            labels += 1
        except InvalidRow as bad:
            raw = shortened(row.raw or "")
            rejected.append(Rejected(file=path.name, line=row.line, field=bad.field, reason=bad.reason, raw=raw))
    return ImportedLabels(labels, empty, tuple(rejected))


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise PerpetuneError(f"the file cannot be read: {fault.strerror}", where=str(path)) from None
    if not data.strip():
        raise PerpetuneError("the file is empty", where=str(path), do="write one with `perpetune labels --out FILE`")
    return data


def _feedback(row: Row | UnreadableRow) -> Feedback | None:
    """The row as feedback; None if its label is empty. Raises InvalidRow."""
    if isinstance(row, UnreadableRow):
        raise InvalidRow(None, row.reason)
    request_id, label = _text(row.values, "request_id"), _text(row.values, "label")
    if not request_id:
        raise InvalidRow("request_id", "empty")
    return Feedback(request_id=request_id, time=datetime.now(UTC), label=label) if label.strip() else None


def _text(values: Mapping[str, object], name: str) -> str:
    if name not in values:
        raise InvalidRow(name, "missing")
    value = values[name]
    if value is not None and not isinstance(value, str):
        raise InvalidRow(name, f"must be text, got {json.dumps(value, ensure_ascii=False):.40}")
    return value or ""


def _check(feedback: Feedback, rule: LabelRule) -> None:
    if fault := rule.fault(str(feedback.label)):
        raise InvalidRow("label", fault)


def _store(log: Engine, feedback: Feedback) -> None:
    try:
        add_feedback(log, feedback)
    except UnknownRequest as fault:
        raise InvalidRow("request_id", fault.what) from None

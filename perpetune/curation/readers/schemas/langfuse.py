"""Langfuse: observations, traces and data set items, with an input and an output of any shape."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.curation.readers.row import is_absent
from perpetune.curation.readers.schemas.messages import conversation_of, exchange, parsed
from perpetune.curation.readers.schemas.schema import Converted, Schema, Values, converted, first_of, has

_MARKS = ("traceId", "trace_id", "observations", "sourceTraceId", "datasetId", "dataset_id")
_OUTPUTS = ("expectedOutput", "expected_output", "output")
_TIMES = ("startTime", "start_time", "timestamp", "createdAt", "created_at")
_SESSIONS = ("sessionId", "session_id")


def _convert(values: Values) -> Converted:
    asked = _single_text(parsed(values.get("input")))
    output = next((name for name in _OUTPUTS if has(values, name)), "output")
    new = exchange(asked, parsed(values.get(output)))
    if not has(values, "time"):
        new["time"] = first_of(values, *_TIMES)
    if not has(values, "group"):
        new["group"] = first_of(values, *_SESSIONS)
    found = converted(values, new, "input", output, *_TIMES, *_SESSIONS, "level")
    if str(values.get("level")).upper() == "ERROR":
        return Converted(found.values, found.used, wrong=("level", "ERROR: the call failed"))
    return found


def _single_text(value: object) -> object:
    """The text of an object with one value, such as `{"question": "..."}`."""
    if isinstance(value, Mapping) and conversation_of(value) is None and "role" not in value:
        filled = [each for each in value.values() if not is_absent(each)]
        return filled[0] if len(filled) == 1 else value
    return value


LANGFUSE = Schema(
    "Langfuse",
    frozenset({"input", *_MARKS, *_OUTPUTS, *_TIMES, *_SESSIONS, "level"}),
    lambda values: "input" in values and any(name in values for name in (*_MARKS, *_OUTPUTS[:2])),
    _convert,
)

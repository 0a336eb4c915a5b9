"""Spans of OpenTelemetry's conventions for generative AI, current and earlier.

https://opentelemetry.io/docs/specs/semconv/gen-ai/ : `gen_ai.input.messages` and `gen_ai.output.messages`; before that
`gen_ai.prompt.0.content`, and events such as `gen_ai.user.message`. OpenInference, of Arize Phoenix, has
`llm.input_messages.0.message.content`: https://arize-ai.github.io/openinference/spec/semantic_conventions.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from perpetune.curation.readers.row import InvalidRow
from perpetune.curation.readers.schemas.messages import Turn, answer_turn, conversation_of, parsed
from perpetune.curation.readers.schemas.schema import Converted, Schema, Values, converted, epoch_time, first_of

_NUMBERED = re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(role|content)")
_OPENINFERENCE = re.compile(r"llm\.(input|output)_messages\.(\d+)\.message\.(role|content)")
_KINDS = {"input": "prompt", "output": "completion"}
_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
_DETAILS = "gen_ai.client.inference.operation.details"
_IDS = ("spanId", "span_id")
_TIMES = ("startTimeUnixNano", "start_time_unix_nano", "timeUnixNano")
_LAYERS = {"resourceSpans": ("scopeSpans", "spans"), "resourceLogs": ("scopeLogs", "logRecords")}


def spans(values: Values) -> list[Values] | None:
    """The spans or log records of a message in OTLP's JSON; None if the record is none."""
    for outer, (middle, inner) in _LAYERS.items():
        if outer in values:
            return [
                each
                for resource in _objects(values[outer])
                for scope in _objects(resource.get(middle))
                for each in _objects(scope.get(inner))
            ]
    return None


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else iter(())


def _convert(values: Values) -> Converted:
    attributes = _attributes(values.get("attributes")) | _details(values)
    asked = _current(attributes, "gen_ai.input.messages") or _numbered(attributes, "prompt") or _asked_in_events(values)
    answer = (
        answer_turn(_current(attributes, "gen_ai.output.messages"))
        or answer_turn(_numbered(attributes, "completion"))
        or _answered_in_events(values)
    )
    if not asked or not answer:
        raise InvalidRow("attributes", "no gen_ai.input.messages and gen_ai.output.messages")
    system = parsed(attributes.get("gen_ai.system_instructions"))
    if isinstance(system, list) and asked[0]["role"] != "system":
        asked = [*(conversation_of([{"role": "system", "parts": system}]) or []), *asked]
    new: dict[str, object] = {"messages": [*asked, answer], "id": first_of(values, "id", *_IDS)}
    new["group"] = attributes.get("gen_ai.conversation.id")
    time = first_of(values, *_TIMES)
    if str(time).isdigit():
        new["time"] = epoch_time(f"{time}e-9")
    found = converted(values, new, "attributes", "events", "status", *_IDS, *_TIMES)
    status = values.get("status")
    if isinstance(status, Mapping) and status.get("code") in (2, "STATUS_CODE_ERROR", "ERROR"):
        return Converted(found.values, found.used, wrong=("status", "the call failed"))
    return found


def _details(values: Values) -> dict[str, Any]:
    """The messages of a span that has them in an event, beside its other attributes."""
    found = [each for each in _objects(values.get("events")) if each.get("name") == _DETAILS]
    return _attributes(found[-1].get("attributes")) if found else {}


def _attributes(value: object) -> dict[str, Any]:
    """Attributes as a dictionary: an object, or OTLP's list of `key` and `value`."""
    if isinstance(value, Mapping):
        return dict(value)
    return {str(each.get("key")): _plain(each.get("value")) for each in _objects(value)}


def _plain(value: Any) -> Any:
    """A value of OTLP, such as `{"stringValue": "a"}`."""
    if not isinstance(value, Mapping):
        return value
    for kind in ("arrayValue", "kvlistValue"):
        if kind in value:
            inner = value[kind].get("values") if isinstance(value[kind], Mapping) else None
            found = list(_objects(inner))
            return [_plain(each) for each in found] if kind == "arrayValue" else _attributes(found)
    return next(iter(value.values()), None)


def _current(attributes: Mapping[str, Any], name: str) -> list[Turn] | None:
    return conversation_of(parsed(attributes.get(name)))


def _numbered(attributes: Mapping[str, Any], kind: str) -> list[Turn] | None:
    turns: dict[int, dict[str, Any]] = {}
    for name, value in attributes.items():
        found = _NUMBERED.fullmatch(name) or _OPENINFERENCE.fullmatch(name)
        if found and _KINDS.get(found[1], found[1]) == kind:
            turns.setdefault(int(found[2]), {})[found[3]] = value
    default = {"role": "user" if kind == "prompt" else "assistant"}
    return conversation_of([{**default, **turns[number]} for number in sorted(turns)])


def _asked_in_events(values: Values) -> list[Turn] | None:
    turns = []
    for event in _objects(values.get("events")):
        attributes = _attributes(event.get("attributes"))
        kind = _EVENT.fullmatch(str(event.get("name")))
        if kind:
            turns.append({"role": kind[1], **attributes})
        elif event.get("name") == "gen_ai.content.prompt":
            turns += conversation_of(parsed(attributes.get("gen_ai.prompt"))) or []
    return conversation_of(turns)


def _answered_in_events(values: Values) -> Turn | None:
    for event in _objects(values.get("events")):
        attributes = _attributes(event.get("attributes"))
        if event.get("name") == "gen_ai.choice":
            message = parsed(attributes.get("message", attributes))
            return answer_turn({"role": "assistant", **message}) if isinstance(message, Mapping) else None
        if event.get("name") == "gen_ai.content.completion":
            return answer_turn(parsed(attributes.get("gen_ai.completion")))
    return None


OPENTELEMETRY = Schema(
    "OpenTelemetry spans",
    frozenset({"attributes", "events", "status", "resourceSpans", "resourceLogs", *_IDS, *_TIMES}),
    lambda values: (
        isinstance(values.get("attributes"), (list, Mapping))
        and any(name in values for name in (*_IDS, *_TIMES, "events"))
    ),
    _convert,
)

"""OpenAI's stored completions: a completion with `choices`, beside the messages that were asked."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.curation.readers.row import InvalidRow
from perpetune.curation.readers.schemas.messages import answer_turn, conversation_of
from perpetune.curation.readers.schemas.schema import Converted, Schema, Values, converted, epoch_time, has

_ASKED = ("messages", "input", "request", "body", "prompt")
_CUT = {"length": "cut off at the length limit", "content_filter": "withheld by a filter"}


def _convert(values: Values) -> Converted:
    completion = _completion(values)
    asked = next((turns for name in _ASKED if (turns := conversation_of(values.get(name)))), None)
    if asked is None:
        advice = "the API gives them at /chat/completions/ID/messages: put them beside `choices`"
        raise InvalidRow("messages", f"missing; {advice}")
    answer = answer_turn(completion)
    if answer is None:
        raise InvalidRow("choices", "hold no message of the assistant")
    new: dict[str, object] = {"messages": [*asked, answer]}
    if not has(values, "time"):
        new["time"] = epoch_time(completion.get("created"))
    found = converted(values, new, *_ASKED, "choices", "response", "created")
    fault = _CUT.get(_finish_reason(completion))
    return found if fault is None else Converted(found.values, found.used, wrong=("choices", f"the answer was {fault}"))


def _completion(values: Values) -> Mapping[str, object]:
    """The record itself, or what a batch file has in `response.body`."""
    response = values.get("response")
    body = response.get("body", response) if isinstance(response, Mapping) else None
    return body if isinstance(body, Mapping) and "choices" in body else values


def _finish_reason(completion: Mapping[str, object]) -> str:
    choices = completion.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return str(first.get("finish_reason")) if isinstance(first, Mapping) else ""


STORED_COMPLETION = Schema(
    "OpenAI stored completions",
    frozenset({*_ASKED, "choices", "response", "created"}),
    lambda values: isinstance(_completion(values).get("choices"), list),
    _convert,
)

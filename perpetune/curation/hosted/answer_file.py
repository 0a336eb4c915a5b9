"""Files with a hosted model's answers, in the shapes in which providers and scripts write them.

Outputs of OpenAI's batch API (with its requests, which hold what was asked), stored completions, output items of evals,
answers of the Chat Completions and the Responses API, and plain `{"input" or "messages" or "id": ..., "output": ...}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perpetune.curation.hosted.answer_text import is_refused, learnable_text
from perpetune.curation.readers.addresses.compressed import opened, without_compression
from perpetune.curation.readers.file_format import table_of
from perpetune.curation.readers.options import ReadOptions
from perpetune.curation.readers.row import is_absent
from perpetune.curation.readers.schemas.messages import Turn, answer_turn, conversation_of, parsed
from perpetune.curation.readers.schemas.schema import INPUT_NAMES
from perpetune.curation.readers.table import EVERY_COLUMN, Row, UnreadableRow

_IDS = ("custom_id", "id", "row_id")
_ANSWERS = ("output", "answer", "completion", "response", "output_text", "generated", "prediction", "content")
_REQUESTS = ("body", "request", "sample", "item", "datasource_item")
Values = Mapping[str, object]


@dataclass(frozen=True)
class HostedAnswer:
    """What a hosted model answered. `asked` is the conversation, None if the file does not say; `line` counts from 1."""

    id: str | None
    asked: tuple[Turn, ...] | None
    output: str
    where: str


@dataclass(frozen=True)
class Unusable:
    """A line that holds no answer, and why."""

    where: str
    reason: str


def read_answers(files: Sequence[tuple[Path, str]]) -> tuple[list[HostedAnswer], list[Unusable]]:
    """The answers of files, each with the name that messages give it.

    An answer that does not say what was asked, as in the output of a batch, takes that from the request with its
    `custom_id`, if one of the files has it. Raises PerpetuneError if a file cannot be read.
    """
    answers: list[HostedAnswer] = []
    unusable: list[Unusable] = []
    requests: dict[str, tuple[Turn, ...]] = {}
    for path, name in files:
        for where, row in _rows(path, name):
            if isinstance(row, UnreadableRow):
                unusable.append(Unusable(where, row.reason))
            elif _is_request(row.values):
                requests[_id(row.values) or ""] = asked_in(row.values) or ()
            else:
                found = _answer(row.values, where)
                (answers if isinstance(found, HostedAnswer) else unusable).append(found)  # type: ignore[arg-type]
    return [_with_request(answer, requests) for answer in answers], unusable


def _rows(path: Path, name: str) -> Iterator[tuple[str, Row | UnreadableRow]]:
    with opened(path) as file:
        for row in table_of(file, without_compression(Path(name)), EVERY_COLUMN, ReadOptions()).rows:
            yield f"{name}:{row.line}", row


def _with_request(answer: HostedAnswer, requests: Mapping[str, tuple[Turn, ...]]) -> HostedAnswer:
    asked = requests.get(answer.id) if answer.asked is None and answer.id is not None else None
    return replace(answer, asked=asked) if asked else answer


def _is_request(values: Values) -> bool:
    """A line of a batch's input: `custom_id` with a `body` that was sent, and no answer."""
    body = values.get("body")
    return isinstance(body, Mapping) and "choices" not in body and "response" not in values and bool(_id(values))


def _answer(values: Values, where: str) -> HostedAnswer | Unusable:
    fault = _failure(values)
    turn = _answered(values)
    if fault or turn is None:
        return Unusable(where, fault or "it holds no answer: no `choices`, `output`, `answer` or assistant's message")
    text = learnable_text(turn)
    if not text.strip():
        return Unusable(where, "the answer is empty")
    return HostedAnswer(_id(values), asked_in(values), text, where)


def _failure(values: Values) -> str | None:
    """Why the provider gave no answer: of a batch's output line, or of the answer itself."""
    response = values.get("response")
    status = response.get("status_code") if isinstance(response, Mapping) else None
    body = response.get("body") if isinstance(response, Mapping) else None
    error = values.get("error") or (body.get("error") if isinstance(body, Mapping) else None)
    if error:
        told = error.get("message", error) if isinstance(error, Mapping) else error
        return f"error: the request failed: {told!s:.120}"
    if isinstance(status, int) and status != 200:
        return f"response.status_code: the request failed with {status}"
    return "the answer was withheld by a filter" if is_refused(_completion(values)) else None


def _completion(values: Values) -> Values:
    """The part of a line that the provider's answer is in."""
    response = values.get("response")
    for found in (response.get("body") if isinstance(response, Mapping) else None, response, values.get("sample")):
        if isinstance(found, Mapping):
            return found
    return values


def _answered(values: Values) -> Turn | None:
    """The assistant's turn: of `choices`, of an answer's field, or the last one of `messages`."""
    completion = _completion(values)
    if isinstance(completion.get("choices"), list):
        return answer_turn(completion) or _legacy(completion)
    for name in _ANSWERS:
        value = parsed(completion.get(name))
        if not is_absent(value) and (turn := _turn(value)) is not None:
            return turn
    messages = conversation_of(parsed(completion.get("messages")))
    return messages[-1] if messages and messages[-1]["role"] == "assistant" else None


def _legacy(completion: Values) -> Turn | None:
    """An answer of the old text API: `choices[0].text`."""
    choices = completion["choices"]
    first = choices[0] if isinstance(choices, list) and choices else None
    text = first.get("text") if isinstance(first, Mapping) else None
    return {"role": "assistant", "content": text} if isinstance(text, str) else None


def _turn(value: object) -> Turn | None:
    """An answer as a turn: a text, a message, messages, or the items of the Responses API."""
    if isinstance(value, str):
        return {"role": "assistant", "content": value}
    if isinstance(value, list) and any(isinstance(each, Mapping) and "type" in each for each in value):
        return _of_items([each for each in value if isinstance(each, Mapping)])
    turn = answer_turn(value)
    if turn is not None:
        return turn
    return {"role": "assistant", "content": value} if isinstance(value, (dict, list, int, float)) else None


def _of_items(items: Sequence[Values]) -> Turn:
    """The items of an answer of the Responses API: messages and function calls; reasoning is no answer."""
    contents = [each.get("content") for each in items if each.get("type") == "message"]
    texts = [part.get("text") for content in contents if isinstance(content, list) for part in content]
    calls = [
        {"type": "function", "function": {"name": each.get("name"), "arguments": each.get("arguments")}}
        for each in items
        if each.get("type") == "function_call"
    ]
    content = "".join(text for text in texts if isinstance(text, str))
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}


def asked_in(values: Values) -> tuple[Turn, ...] | None:
    """The conversation that was asked, without an answer at its end; None if the line does not say."""
    for part in (values, *(values[name] for name in _REQUESTS if isinstance(values.get(name), Mapping))):
        assert isinstance(part, Mapping)
        inner = part.get("body")
        turns = _asked_in_one(part) or (_asked_in_one(inner) if isinstance(inner, Mapping) else None)
        if turns:
            return tuple(turns)
    return None


def _asked_in_one(values: Values) -> list[Turn] | None:
    for name in ("messages", *INPUT_NAMES):
        value = parsed(values.get(name))
        turns = conversation_of(value)
        if turns is None and isinstance(value, str) and value.strip():
            turns = [{"role": "user", "content": value}]
        while turns and turns[-1]["role"] == "assistant":
            turns = turns[:-1]
        if turns:
            told = values.get("instructions")
            return [{"role": "system", "content": told}, *turns] if isinstance(told, str) and told else turns
    return None


def _id(values: Values) -> str | None:
    value = next((values[name] for name in _IDS if not is_absent(values.get(name)) and values[name] != ""), None)
    return None if value is None else str(value).strip()

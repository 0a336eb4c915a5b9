"""Records of the loop: examples, predictions, feedback; and how they are read and written as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import compress, repeat
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from perpetune.files import write_lines_atomic

Record = TypeVar("Record", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Frozen):
    """One message in OpenAI's chat format.

    `tool_calls` are those of an assistant message, unchanged; `tool_call_id` is the call that a tool message answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: str | None = None


class Example(_Frozen):
    """An input and its expected output.

    `messages` is the whole conversation before the output if the row has one; otherwise the conversation is the task's
    instruction followed by `input`. Rows of one `group` are always in the same split. `references` are other correct
    outputs; only `output` is trained on. If it `answers_with` tool calls, `output` is their canonical JSON (see
    perpetune/tool_calls.py), and `said` the text before them, which is learned and not scored. `tools` is OpenAI's list
    of the tools that the prompt offers, as JSON.
    `weight` is what the row counts in a mean of scores over a holdout: rows of traffic that were drawn for doubt count
    less, so that the mean is that of all traffic. Training ignores it.
    """

    input: str
    output: str
    id: str
    group: str
    time: AwareDatetime | None = None
    source: str
    messages: tuple[Message, ...] = ()
    references: tuple[str, ...] = ()
    answers_with: Literal["text", "tool_calls"] = "text"
    tools: str | None = None
    weight: float = Field(default=1.0, gt=0)
    said: str = ""

    @property
    def right_outputs(self) -> tuple[str, ...]:
        return (self.output, *self.references)

    def model_post_init(self, _: object, /) -> None:
        # pydantic notes in each row which fields were given. As a set of its own that is half of a row's memory.
        object.__setattr__(self, "__pydantic_fields_set__", _ALL_FIELDS)

    def __copy__(self) -> Self:
        copied = super().__copy__()
        object.__setattr__(copied, "__pydantic_fields_set__", _ALL_FIELDS)
        return copied


_ALL_FIELDS = set(Example.model_fields)


Route = Literal["champion", "canary", "pinned"]
Chosen = Literal["lot", "doubt", "disagreement", "unasked"]
"""How a request came to be labelled: drawn by lot, drawn with a propensity that grows with the model's doubt, drawn among
the requests that two versions answer differently, or its label came unasked.
"""
CutOff = Literal["cancelled", "failed"]
"""Why a stream ended early: its client stopped it, or the engine failed."""
CUT_OFF: tuple[CutOff, ...] = get_args(CutOff)


class Prediction(_Frozen):
    """One answered request in the prediction log.

    `route` says why this version answered: it was champion, it was the canary for this request, or the request named
    it. `finish_reason` is the answer's, as in OpenAI's API, or a `CutOff` if `output` is only what was sent of it.
    `label` and `score` are the newest feedback, if there is any. `chosen` says how the request came to be labelled, with
    `propensity` if it was drawn by chance; None if it is neither labelled nor asked for. `weight` is what its label counts
    in a mean of scores: weighted so, labels are an unbiased sample of all requests. None: it judges nothing. `client_id` is the id that the client gave to its
    request, `other_outputs` are the further answers if it asked for several. `likelihood` is the geometric mean of the
    probabilities of the tokens of a free text; None for labels, and if the engine does not give them.
    """

    id: str
    time: AwareDatetime
    task: str
    version: str
    messages: tuple[Message, ...]
    input: str
    output: str
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    latency_ms: float = Field(ge=0)
    confidence: float | None = Field(default=None, ge=0, le=1)
    group: str | None = None
    route: Route = "champion"
    finish_reason: str | None = None
    client_id: str | None = None
    other_outputs: tuple[str, ...] = ()
    likelihood: float | None = Field(default=None, ge=0, le=1)
    label: str | None = None
    score: float | None = None
    chosen: Chosen | None = None
    propensity: float | None = Field(default=None, gt=0, le=1)
    weight: float | None = Field(default=None, gt=0)


class Shadow(_Frozen):
    """A shadow answer: what a version on trial answered to a request of the champion, not sent to the client."""

    request_id: str
    time: AwareDatetime
    task: str
    version: str
    output: str
    latency_ms: float = Field(ge=0)
    confidence: float | None = Field(default=None, ge=0, le=1)
    error: str | None = None


class Failure(_Frozen):
    """A request that failed: `code` is the error code that the client received."""

    id: str
    time: AwareDatetime
    task: str
    version: str
    route: Route
    code: str
    latency_ms: float = Field(ge=0)


class RecordedAnswer(_Frozen):
    """A version's answer to a held-out row and its score (0 to 1). The row's text stays in DVC.

    `likelihood` is as in `Prediction`; None also in records of older perpetunes.
    """

    id: str
    holdout: str
    output: str
    confidence: float | None
    score: float
    likelihood: float | None = None


class Feedback(_Frozen):
    """Feedback on one answer: the correct output, a score, a comment.

    `request_id` is the id of the answer, or the client's own id. `choice` is the number of the answer if there are
    several: a score is about this one, a label about the request. `propensity` is the probability with which the client's
    own lot drew the request to be labelled.
    """

    request_id: str
    time: AwareDatetime
    label: str | None = None
    score: float | None = None
    comment: str | None = None
    choice: int = Field(default=0, ge=0)
    propensity: float | None = Field(default=None, gt=0, le=1)


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write one record a line, atomically; returns how many."""
    return write_lines_atomic(path, map(as_line, records))


def as_line(record: BaseModel) -> str:
    """The record as JSON, without what has its default."""
    return record.model_dump_json(exclude_defaults=True)


def read_jsonl(path: Path, kind: type[Record]) -> list[Record]:
    """Read a file that `write_jsonl` wrote. Raises pydantic.ValidationError if a line is not such a record."""
    return list(StoredRecords(path, kind))


class StoredRecords(Collection[Record]):
    """The records of a file that `write_jsonl` wrote, each read when it is asked for, so that none is held in memory.

    They can be gone through several times. Raises pydantic.ValidationError at a line that is no such record.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        self.path = path
        self._kind = kind

    def __iter__(self) -> Iterator[Record]:
        return self.chosen(repeat(True))

    def chosen(self, is_chosen: Iterable[bool]) -> Iterator[Record]:
        """The records of which this says so, one after the other."""
        with self.path.open("rb") as lines:
            for line in compress(lines, is_chosen):
                yield self._kind.model_validate_json(line)

    def __len__(self) -> int:
        with self.path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))

    def __contains__(self, record: object) -> bool:
        return any(each == record for each in self)


def last_user_message(messages: Sequence[Message]) -> str:
    """The content of the last user message, which is the input of a linear model; "" if there is none."""
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def conversation(
    instruction: str, example: Example | Prediction, shots: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """The messages of a row's prompt: instruction, few-shot examples, then the row's conversation or input."""
    return with_instruction(instruction, example.messages or (Message(role="user", content=example.input),), shots)


def with_instruction(
    instruction: str, messages: tuple[Message, ...], shots: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """Add the task's instruction as system message, unless the conversation has one; then the few-shot examples.

    `shots` are user and assistant messages in turn.
    """
    if instruction and not (messages and messages[0].role == "system"):
        messages = (Message(role="system", content=instruction), *messages)
    return with_shots(shots, messages)


def with_shots(shots: Sequence[Message], messages: Sequence[Message]) -> tuple[Message, ...]:
    """Insert the few-shot examples after the system message, if there is one, and before the rest."""
    behind = 1 if messages and messages[0].role == "system" else 0
    return (*messages[:behind], *shots, *messages[behind:])


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 time; without an offset it is UTC. Raises ValueError if it is not one."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def to_json(value: object) -> str:
    """Readable JSON: indented, keys in the order given, no ASCII escapes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

"""The data that moves through the loop: examples, predictions and feedback."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from perpetune.files import write_atomic

Record = TypeVar("Record", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Frozen):
    """One turn of a conversation, as OpenAI's chat format has it.

    `tool_calls` are the calls that an assistant's turn made, each as it came; `tool_call_id` names the one that a
    tool's turn answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: str | None = None


class Example(_Frozen):
    """An input and the output wanted for it.

    `messages` is the whole conversation before the output where the row brought one; without it the
    conversation is the task's instruction followed by `input`. `group` never straddles two splits.
    `references` are other outputs that are as right; only `output` is trained on.
    """

    input: str
    output: str
    id: str
    group: str
    time: AwareDatetime | None = None
    source: str
    messages: tuple[Message, ...] = ()
    references: tuple[str, ...] = ()

    @property
    def right_outputs(self) -> tuple[str, ...]:
        return (self.output, *self.references)


Route = Literal["champion", "canary", "pinned"]


class Prediction(_Frozen):
    """One answered request, as the gateway logs it.

    `route` says why this version answered: it was champion, it is on trial and the request fell to its share, or the
    request named it. `label` and `score` are the newest feedback on it, where any has arrived.
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
    label: str | None = None
    score: float | None = None


class Shadow(_Frozen):
    """What a version on trial would have answered to a request that the champion answered; nobody was shown it."""

    request_id: str
    time: AwareDatetime
    task: str
    version: str
    output: str
    latency_ms: float = Field(ge=0)
    confidence: float | None = Field(default=None, ge=0, le=1)
    error: str | None = None


class Failure(_Frozen):
    """A request that a version did not answer: `code` is that of the error which the client got."""

    id: str
    time: AwareDatetime
    task: str
    version: str
    route: Route
    code: str
    latency_ms: float = Field(ge=0)


class RecordedAnswer(_Frozen):
    """What a version answered to a held-out row, and how well (0 to 1). The row's text stays with DVC."""

    id: str
    holdout: str
    output: str
    confidence: float | None
    score: float


class Feedback(_Frozen):
    """What somebody later said of one answer: the right output, a score, a comment."""

    request_id: str
    time: AwareDatetime
    label: str | None = None
    score: float | None = None
    comment: str | None = None


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write one record a line, whole or not at all, and return how many."""
    lines = [record.model_dump_json(exclude_defaults=True) for record in records]
    write_atomic(path, "".join(line + "\n" for line in lines))
    return len(lines)


def read_jsonl(path: Path, kind: type[Record]) -> list[Record]:
    """Read what `write_jsonl` wrote."""
    return list(_iterate(path, kind))


def _iterate(path: Path, kind: type[Record]) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield kind.model_validate_json(line)


def last_user_message(messages: Sequence[Message]) -> str:
    """The last thing that the user said, which is what a linear model reads; "" for nothing."""
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def conversation(
    instruction: str, example: Example | Prediction, shots: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """The messages that the model reads for this row."""
    return with_instruction(instruction, example.messages or (Message(role="user", content=example.input),), shots)


def with_instruction(
    instruction: str, messages: tuple[Message, ...], shots: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """Put the task's instruction first, unless the conversation brings a system message of its own; then the shots.

    `shots` are examples that a prompted model is shown, user and assistant in turn.
    """
    if instruction and not (messages and messages[0].role == "system"):
        messages = (Message(role="system", content=instruction), *messages)
    return with_shots(shots, messages)


def with_shots(shots: Sequence[Message], messages: Sequence[Message]) -> tuple[Message, ...]:
    """Show the examples behind the system message, if there is one, and before all else."""
    behind = 1 if messages and messages[0].role == "system" else 0
    return (*messages[:behind], *shots, *messages[behind:])


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 time; one without an offset is taken as UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def to_json(value: object) -> str:
    """JSON for people and diffs: indented, keys in the order given, no ASCII escapes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

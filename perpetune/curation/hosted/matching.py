"""Which recorded answer belongs to which row: by the conversation, or by the id if a file says nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from perpetune.curation.hosted.answer_file import HostedAnswer
from perpetune.curation.hosted.answer_text import answer_text, functions_in
from perpetune.curation.readers.schemas.messages import Turn
from perpetune.curation.text import fingerprint, tidy
from perpetune.errors import PerpetuneError
from perpetune.records import Example, Message, read_jsonl, write_jsonl


class StoredAnswer(BaseModel):
    """An answer in the workspace, under the hashes of its conversation with and without the system message, or its id."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str | None = None
    conversation: str | None = None
    turns: str | None = None
    output: str

    @property
    def name(self) -> tuple[str | None, str | None]:
        return (self.conversation, None) if self.conversation else (None, self.id)


def stored(answers: Iterable[HostedAnswer]) -> list[StoredAnswer]:
    """The answers as they are kept; if the same was asked more than once, its first answer."""
    found: dict[tuple[str | None, str | None], StoredAnswer] = {}
    for answer in answers:
        one = _stored(answer)
        if one.name != (None, None):
            found.setdefault(one.name, one)
    return list(found.values())


def _stored(answer: HostedAnswer) -> StoredAnswer:
    if answer.asked is None:
        return StoredAnswer(id=answer.id, output=answer.output)
    turns = _keys_of(answer.asked)
    return StoredAnswer(id=answer.id, conversation=_all(turns), turns=_without_system(turns), output=answer.output)


@dataclass(frozen=True)
class AnswerIndex:
    """Recorded answers by what was asked, and by id."""

    by_conversation: Mapping[str, StoredAnswer] = field(default_factory=dict)
    by_turns: Mapping[str, StoredAnswer] = field(default_factory=dict)
    by_id: Mapping[str, StoredAnswer] = field(default_factory=dict)

    def answer_to(self, row: Example) -> StoredAnswer | None:
        """By the whole conversation; then without the system message, if only one was ever used; then by id.

        The id counts only for answers that do not say what was asked.
        """
        messages = row.messages or (Message(role="user", content=row.input),)
        turns = _keys_of(message.model_dump(exclude_none=True) for message in messages)
        return (
            self.by_conversation.get(_all(turns))
            or self.by_turns.get(_without_system(turns))
            or self.by_id.get(row.id)
            or self.by_id.get(row.id.removeprefix(f"{row.source}:"))
        )


def index_of(answers: Iterable[StoredAnswer]) -> AnswerIndex:
    by_turns: dict[str, list[StoredAnswer]] = defaultdict(list)
    by_conversation: dict[str, StoredAnswer] = {}
    by_id: dict[str, StoredAnswer] = {}
    for answer in answers:
        if answer.conversation and answer.turns:
            by_conversation[answer.conversation] = answer
            by_turns[answer.turns].append(answer)
        elif answer.id:
            by_id[answer.id] = answer
    unique = {turns: found[0] for turns, found in by_turns.items() if len({one.output for one in found}) == 1}
    return AnswerIndex(by_conversation, unique, by_id)


def save_answers(path: Path, answers: Sequence[StoredAnswer]) -> int:
    """Add the answers to those that are kept; a newer answer replaces an older one. Returns how many are kept."""
    kept = {one.name: one for one in (*load_answers(path), *answers)}
    return write_jsonl(path, kept.values())


def load_answers(path: Path) -> list[StoredAnswer]:
    """The answers that are kept; [] if there are none. Raises PerpetuneError if the file is damaged."""
    try:
        return read_jsonl(path, StoredAnswer) if path.is_file() else []
    except (ValidationError, UnicodeDecodeError):
        raise PerpetuneError(
            "the recorded answers of the hosted model cannot be read",
            where=str(path),
            do="delete the file, and import the answers again",
        ) from None


def _keys_of(turns: Iterable[Turn]) -> list[list[object]]:
    """Without empty system messages, which readers of rows drop."""
    return [key for key in map(_key_of_turn, turns) if key != ["system", "", []]]


def _all(turns: Sequence[Sequence[object]]) -> str:
    return fingerprint(turns)


def _without_system(turns: Sequence[Sequence[object]]) -> str:
    return fingerprint([turn for turn in turns if turn[0] != "system"])


def _key_of_turn(turn: Turn) -> list[object]:
    """Role, text and tool calls: ids of calls are drawn by chance, and whitespace around a text is often lost."""
    role = {"developer": "system", "function": "tool"}.get(str(turn["role"]), str(turn["role"]))
    calls = functions_in(turn)
    return [role, "" if calls and not turn.get("content") else tidy(answer_text(turn)), _canonical(calls)]


def _canonical(calls: Sequence[object]) -> list[str]:
    return [json.dumps(call, sort_keys=True, ensure_ascii=False) for call in calls]

"""Which recorded answer belongs to which row: by the conversation, or by the id if a file says nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    """An answer in the workspace, under the hashes of its conversation with and without the system message, or its id.

    `rows` are the ids of the rows that it belonged to when they were imported: a later step may repair a text or replace what
    is private in it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str | None = None
    conversation: str | None = None
    turns: str | None = None
    output: str
    rows: tuple[str, ...] = ()

    def belongs_to(self, names: Collection[str], turns: Collection[str]) -> bool:
        """Whether it answers one of the rows with these names (`names_of`) or conversations (`turns_hash`).

        Its own id counts only if it does not say what was asked.
        """
        own = () if self.conversation or self.id is None else (self.id,)
        return self.turns in turns or any(name in names for name in (*own, *self.rows))

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
    by_row: Mapping[str, StoredAnswer] = field(default_factory=dict)

    def answer_to(self, row: Example) -> StoredAnswer | None:
        """By the whole conversation; then without the system message, if only one was ever used; then by id.

        An answer's own id counts only if it does not say what was asked.
        """
        turns = _turns_of(row)
        return (
            self.by_conversation.get(_all(turns))
            or self.by_turns.get(_without_system(turns))
            or next(
                (found for name in names_of(row) for by in (self.by_id, self.by_row) if (found := by.get(name))), None
            )
        )


def turns_hash(row: Example) -> str:
    """The hash of a row's conversation without system messages, as `StoredAnswer.turns` has it."""
    return _without_system(_turns_of(row))


def _turns_of(row: Example) -> list[list[object]]:
    messages = row.messages or (Message(role="user", content=row.input),)
    return _keys_of(message.model_dump(exclude_none=True) for message in messages)


def names_of(row: Example) -> tuple[str, ...]:
    """The row's id, without what `validate` puts before or behind an id that other rows have too."""
    bare = row.id.removeprefix(f"{row.source}:")
    return row.id, bare, bare.rpartition("~")[0]


def with_rows(answers: Sequence[StoredAnswer], rows: Iterable[Example]) -> list[StoredAnswer]:
    """The answers with the ids of the rows that they belong to."""
    index, ids = index_of(answers), defaultdict[tuple[str | None, str | None], set[str]](set)
    for row in rows:
        found = index.answer_to(row)
        if found is not None:
            ids[found.name].add(row.id)
    return [one.model_copy(update={"rows": tuple(sorted(ids[one.name]))}) for one in answers]


def index_of(answers: Iterable[StoredAnswer]) -> AnswerIndex:
    by_turns: dict[str, list[StoredAnswer]] = defaultdict(list)
    by_conversation: dict[str, StoredAnswer] = {}
    by_id: dict[str, StoredAnswer] = {}
    by_row: dict[str, StoredAnswer] = {}
    for answer in answers:
        by_row |= dict.fromkeys(answer.rows, answer)
        if answer.conversation and answer.turns:
            by_conversation[answer.conversation] = answer
            by_turns[answer.turns].append(answer)
        elif answer.id:
            by_id[answer.id] = answer
    unique = {turns: found[0] for turns, found in by_turns.items() if len({one.output for one in found}) == 1}
    return AnswerIndex(by_conversation, unique, by_id, by_row)


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

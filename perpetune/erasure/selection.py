"""Which rows are to be erased, and which texts of theirs reports must not hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from perpetune.curation.dedup_key import DedupKey, input_key
from perpetune.errors import PerpetuneError
from perpetune.records import Example


class Selector(BaseModel):
    """What the user named: a text, a regular expression, an id or a group; or the rows that `erased.json` names."""

    model_config = ConfigDict(frozen=True)

    match: str | None = None
    regex: bool = False
    id: str | None = None
    group: str | None = None

    @property
    def kind(self) -> str:
        return "id" if self.id is not None else "group" if self.group is not None else "match"

    def pattern(self) -> re.Pattern[str] | None:
        """The pattern of the text, of any case and whitespace. Raises PerpetuneError if it is no regular expression."""
        if self.match is None:
            return None
        source = self.match if self.regex else r"\s+".join(map(re.escape, self.match.split()))
        try:
            found = re.compile(source, re.IGNORECASE)
        except re.error as fault:
            raise PerpetuneError(f"{self.match!r} is no regular expression: {fault}", where="--match") from None
        if found.search(""):
            raise PerpetuneError("it matches every text", where="--match", do="name the text that is to be erased")
        return found

    def selects(self, row: Example) -> bool:
        if self.id is not None:
            return self.id in (row.id, f"{row.source}:{row.id}") or row.id == f"{row.source}:{self.id}"
        if self.group is not None:
            return row.group == self.group
        pattern = self.pattern()
        return pattern is not None and any(pattern.search(text) for text in texts_of(row))


@dataclass(frozen=True)
class Targets:
    """The rows to erase: those that `selects` names and all with their `keys`.

    `found` collects the rows as they are met; `pattern` is the text itself, `texts` are those of the rows.
    """

    selects: Callable[[Example], bool]
    pattern: re.Pattern[str] | None = None
    keys: set[DedupKey] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    found: dict[tuple[str, str, DedupKey], Example] = field(default_factory=dict)

    def holds(self, row: Example) -> bool:
        key = input_key(row)
        return key in self.keys or self.selects(row)

    def add(self, row: Example) -> None:
        """Note a row, so that its copies are erased too."""
        key = input_key(row)
        self.keys.add(key)
        self.ids.add(row.id)
        self.texts.update(own_texts(row))
        self.found.setdefault((row.source, row.id, key), row)

    def add_if_selected(self, rows: Iterable[Example]) -> None:
        for row in rows:
            if self.holds(row):
                self.add(row)


def texts_of(row: Example) -> Iterable[str]:
    """Every text of a row, also its id and group, which may be a name."""
    yield from (row.input, row.output, row.id, row.group, *row.references)
    yield from (message.content for message in row.messages)
    yield from (str(call) for message in row.messages for call in message.tool_calls or ())


_LONG = 40
"""Characters from which an output is no label that other rows have too."""


def own_texts(row: Example) -> Iterable[str]:
    """The texts of a row that are its own: no instructions, and no labels."""
    said = (message.content for message in row.messages if message.role != "system")
    outputs = (text for text in row.right_outputs if len(text) >= _LONG)
    return [text for text in (row.input, *said, *outputs) if text.strip()]

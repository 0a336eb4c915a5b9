"""Which rows are to be erased, and which texts of theirs reports must not hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from perpetune.curation.hosted.matching import names_of, turns_hash
from perpetune.curation.rows.dedup_key import DedupKey, input_key, row_hash
from perpetune.errors import PerpetuneError
from perpetune.records import Example

_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")


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
    """The rows to erase: those that `selects` names, all with their `keys`, and their private forms.

    `found` collects the rows as they are met; `pattern` is the text itself, `texts` are those of the rows. `hashes` are the
    names under which caches know the rows, `names` and `turns` those of recorded answers. `originals` are whole rows by source
    and id.
    """

    selects: Callable[[Example], bool]
    pattern: re.Pattern[str] | None = None
    keys: set[DedupKey] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    found: dict[tuple[str, str, DedupKey], Example] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    turns: set[str] = field(default_factory=set)
    originals: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    private: list[Example] = field(default_factory=list)

    def holds(self, row: Example) -> bool:
        return input_key(row) in self.keys or self.selects(row) or self._is_private_form(row)

    def is_named(self, value: Mapping[str, object]) -> bool:
        """Whether an object has the id of a row, and its source if it says one."""
        name, source = str(value.get("id", value.get("request_id"))), value.get("source")
        if isinstance(source, str) and source:
            return (source, name.removeprefix(f"{source}:")) in self.originals
        return name in self.ids

    def add(self, row: Example) -> None:
        """Note a row, so that its copies are erased too."""
        key = input_key(row)
        self.keys.add(key)
        self.ids.add(row.id)
        self.texts.update(own_texts(row))
        self.found.setdefault((row.source, row.id, key), row)
        self.hashes.add(row_hash(row))
        self.names.update(filter(None, names_of(row)))
        self.turns.add(turns_hash(row))
        self.originals.setdefault(origin_of(row), set()).add(_whole(row))

    def add_if_selected(self, rows: Iterable[Example]) -> None:
        for row in rows:
            if self.holds(row):
                self.add(row)
            elif has_placeholder(_whole(row)):
                self.private.append(row)

    def add_private_forms(self) -> None:
        """Add the private forms of what was found, which may have been met before it."""
        for row in self.private:
            if self._is_private_form(row):
                self.add(row)
        self.private.clear()

    def _is_private_form(self, row: Example) -> bool:
        """Whether it is an erased row with placeholders instead of what is private in it."""
        originals = self.originals.get(origin_of(row), ())
        if not originals or not has_placeholder(whole := _whole(row)):
            return False
        filled = re.compile(".+?".join(map(re.escape, _PLACEHOLDER.split(whole))), re.DOTALL)
        return any(filled.fullmatch(original) for original in originals)


def origin_of(row: Example) -> tuple[str, str]:
    """Source and id, as every step of curation has them."""
    return row.source, row.id.removeprefix(f"{row.source}:")


def has_placeholder(text: str) -> bool:
    return _PLACEHOLDER.search(text) is not None


def _whole(row: Example) -> str:
    """What was asked, as one text."""
    return "\x00".join(message.content for message in row.messages if message.role != "system") or row.input


def texts_of(row: Example) -> Iterable[str]:
    """Every text of a row, also its id and group, which may be a name."""
    yield from (row.input, row.output, row.said, row.id, row.group, *row.references)
    yield from (message.content for message in row.messages)
    yield from (str(call) for message in row.messages for call in message.tool_calls or ())


_LONG = 40
"""Characters from which an output is no label that other rows have too."""


def own_texts(row: Example) -> Iterable[str]:
    """The texts of a row that are its own: no instructions, and no labels."""
    said = (message.content for message in row.messages if message.role != "system")
    outputs = (text for text in (*row.right_outputs, row.said) if len(text) >= _LONG)
    return [text for text in (row.input, *said, *outputs) if text.strip()]

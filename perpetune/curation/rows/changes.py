"""What became of each row between two versions of the data."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from perpetune.curation.difference import Splits, rows_by_id
from perpetune.curation.readers.identity import has_content_id
from perpetune.curation.text import shortened
from perpetune.records import Example

KINDS = ("added", "removed", "changed text", "changed label", "changed split")
SHOWN = 3
"""Examples of each kind."""


@dataclass(frozen=True)
class RowChange:
    """A row before and after: texts are shortened; None if it was not there."""

    id: str
    source: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Changes:
    """The rows of one kind of change: how many, by label and by source, and examples.

    A changed label counts as `before → after`, and so does a changed split. Labels are empty if outputs are free text.
    """

    kind: str
    rows: int
    labels: dict[str, int]
    sources: dict[str, int]
    examples: tuple[RowChange, ...]


_Placed = tuple[str, Example]
_Pair = tuple[_Placed | None, _Placed | None]
_Rows = Mapping[tuple[str, str], _Placed]


def row_changes(before: Splits, after: Splits, *, labelled: bool) -> list[Changes]:
    """Every kind of change, in the order of `KINDS`. A row is the same if it has the same source and id, or, without an
    id of its own, the same source and conversation.

    With free text an output that changed is a changed text.
    """
    old, new = rows_by_id(before), rows_by_id(after)
    pairs: dict[str, list[_Pair]] = {kind: [] for kind in KINDS}
    for pair in _paired(old, new):
        for kind in _kinds(*pair, labelled=labelled):
            pairs[kind].append(pair)
    return [_changes(kind, found, labelled=labelled) for kind, found in pairs.items()]


def _paired(old: _Rows, new: _Rows) -> Iterator[_Pair]:
    """Each row with its other version, in the order of source and id."""
    relabelled: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for key in sorted(new.keys() - old.keys()):
        if has_content_id(new[key][1]):
            relabelled[_conversation(new[key][1])].append(key)
    found: set[tuple[str, str]] = set()
    for key in sorted(old):
        now = key
        # The id of a row without one is a hash that another answer changes.
        if key not in new and has_content_id(old[key][1]) and (others := relabelled[_conversation(old[key][1])]):
            now = others.pop(0)
        found.add(now)
        yield old[key], new.get(now)
    yield from ((None, new[key]) for key in sorted(new.keys() - found))


def _conversation(row: Example) -> str:
    return json.dumps([row.source, row.input, [turn.model_dump() for turn in row.messages]])


def _kinds(old: _Placed | None, new: _Placed | None, *, labelled: bool) -> Iterable[str]:
    if old is None or new is None:
        yield "added" if old is None else "removed"
        return
    (old_split, before), (new_split, after) = old, new
    other_input = (before.input, before.messages) != (after.input, after.messages)
    other_output = before.output != after.output
    if other_input or (other_output and not labelled):
        yield "changed text"
    if other_output and labelled:
        yield "changed label"
    if old_split != new_split:
        yield "changed split"


def _changes(kind: str, pairs: list[_Pair], *, labelled: bool) -> Changes:
    labels = Counter(_label(kind, pair) for pair in pairs) if labelled or kind == "changed split" else Counter[str]()
    sources = Counter(_row(pair).source for pair in pairs)
    return Changes(
        kind,
        len(pairs),
        dict(labels.most_common()),
        dict(sources.most_common()),
        tuple(_example(kind, pair) for pair in pairs[:SHOWN]),
    )


def _row(pair: _Pair) -> Example:
    placed = pair[1] or pair[0]
    assert placed is not None
    return placed[1]


def _label(kind: str, pair: _Pair) -> str:
    if kind == "changed split":
        return " → ".join(placed[0] for placed in pair if placed)
    outputs = dict.fromkeys(placed[1].output for placed in pair if placed)
    return shortened(" → ".join(outputs), 60)


def _example(kind: str, pair: _Pair) -> RowChange:
    row = _row(pair)
    before, after = (_shown(kind, placed) for placed in pair)
    return RowChange(shortened(row.id, 40), row.source, before, after)


def _shown(kind: str, placed: _Placed | None) -> str | None:
    if placed is None:
        return None
    name, row = placed
    if kind == "changed split":
        return f"{name}: {shortened(row.input, 100)}"
    return f"{shortened(row.input, 100)} ⇒ {shortened(row.output, 40)}"

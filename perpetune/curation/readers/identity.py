"""Whether rows with one id are the same row."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from perpetune.curation.readers.row import content_id
from perpetune.curation.text import normalised
from perpetune.records import Example

_WORDS = re.compile(r"\w+")


def with_content_id(row: Example) -> Example:
    """The row with the id that it would have without one."""
    return row.model_copy(update={"id": content_id(row.input, row.output, row.messages, row.said)})


def alike(one: str, other: str) -> bool:
    """Whether one text may be an edit of the other: the same numbers, and at least half of all words in common."""
    words, others = (set(_WORDS.findall(normalised(text))) for text in (one, other))
    if {word for word in words if word.isdigit()} != {word for word in others if word.isdigit()}:
        return False
    return 2 * len(words & others) >= len(words | others)


def unrelated_ids(rows: Callable[[], Iterator[Example]]) -> frozenset[str]:
    """The ids that different rows of a file share, unless they are dated versions of one row.

    `rows` is called twice, so that only the ids of a large file are held in memory, and the rows of the ids that occur
    more than once. An id that stays the same, or starts again in every part of a file, would lose rows.
    """
    first: dict[str, int] = {}
    repeated: set[str] = set()
    for row in rows():
        digest = hash(_content(row))
        if first.setdefault(row.id, digest) != digest:
            repeated.add(row.id)
    if not repeated:
        return frozenset()
    versions: dict[str, list[Example]] = defaultdict(list)
    unrelated: set[str] = set()
    for row in rows():
        if row.id in repeated and row.id not in unrelated:
            if _is_version(row, versions[row.id]):
                versions[row.id].append(row)
            else:
                unrelated.add(row.id)
                del versions[row.id]
    return frozenset(unrelated)


def _is_version(row: Example, others: list[Example]) -> bool:
    """Whether the row repeats another, or is another version of it at another time."""
    return all(
        _content(row) == _content(other)
        or (row.time and other.time and row.time != other.time and alike(row.input, other.input))
        for other in others
    )


def _content(row: Example) -> str:
    return content_id(row.input, row.output, row.messages, row.said)


def has_content_id(row: Example) -> bool:
    """Whether the row came without an id of its own."""
    return row.id == _content(row)

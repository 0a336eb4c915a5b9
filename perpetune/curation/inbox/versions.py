"""Newer versions of rows: which file is a newer version of an earlier one, and which rows it replaces."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from perpetune.curation.inbox.files import inbox_files, read_origin
from perpetune.curation.quarantine import Quarantined
from perpetune.curation.readers.identity import alike, has_content_id
from perpetune.curation.rows.dedup_key import DedupKey, dedup_key
from perpetune.curation.rows.versions import OLDER_VERSION
from perpetune.curation.text import fingerprint, normalised
from perpetune.records import Example

_SKETCH = 500
_Place = tuple[int, int]  # of a file, and of a row in it
_NO_LETTERS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True)
class Sketch:
    """A sample of a file's rows: the inputs by id, and the hashes of the inputs of rows without ids.

    The sample has the smallest hashes (bottom-k: Cohen and Kaplan 2007, doi:10.1145/1281100.1281133), so that two files
    sample the same rows.
    """

    by_id: Mapping[str, str]
    inputs: frozenset[str]


@dataclass(frozen=True)
class InboxRows:
    """The examples of an inbox file, what their ids begin with, and the files that it is a newer version of."""

    path: Path
    examples: tuple[Example, ...]
    prefix: str = ""
    newer_than: tuple[str, ...] = ()


def family(file: Path) -> str:
    """The name of an inbox file without hash, numbers and dates: `tickets-2024-05` and `tickets-2024-06` are of one family."""
    name = file.stem.rpartition("-")[0]
    return _NO_LETTERS.sub("", name).lower() or name


def sketch(rows: Iterable[Example], prefix: str = "") -> Sketch:
    """The sample of a file, by its ids without the `prefix`."""
    own: list[tuple[str, str, str]] = []
    without: list[str] = []
    for row in rows:
        if has_content_id(row):
            without.append(fingerprint(normalised(row.input)))
        else:
            id = bare(row.id, prefix)
            own.append((fingerprint(id), id, row.input))
        if len(own) + len(without) > 20 * _SKETCH:
            own, without = heapq.nsmallest(_SKETCH, own), heapq.nsmallest(_SKETCH, without)
    sampled = heapq.nsmallest(_SKETCH, own)
    return Sketch({id: input for _, id, input in sampled}, frozenset(heapq.nsmallest(_SKETCH, without)))


def sketch_of(file: Path) -> Sketch:
    """The sample of an inbox file."""
    return _sketch_of(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _sketch_of(file: Path, changed: int) -> Sketch:
    origin = read_origin(file)
    return sketch(_rows(file), origin.prefix if origin else "")


def _rows(file: Path) -> Iterator[Example]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                yield Example.model_validate_json(line)
            except ValidationError:  # a file that was copied there
                continue


def is_newer_version(new: Sketch, earlier: Sketch, *, same_name: bool) -> bool:
    """Whether the files have the same rows.

    Most shared ids must have alike inputs. If there are no shared ids, most rows without ids must share inputs, in a
    file of the same name.
    """
    shared = new.by_id.keys() & earlier.by_id.keys()
    if shared:
        return 2 * sum(alike(new.by_id[id], earlier.by_id[id]) for id in shared) >= len(shared)
    fewer = min(len(new.inputs), len(earlier.inputs))
    return same_name and fewer > 0 and 2 * len(new.inputs & earlier.inputs) >= fewer


def shares_ids(new: Sketch, earlier: Sketch) -> bool:
    return not new.by_id.keys().isdisjoint(earlier.by_id)


def is_superseded(file: Path) -> bool:
    """Whether a file that was ingested later is a newer version of this one."""
    files = inbox_files(file.parent)
    later = files[files.index(file) + 1 :]
    return any(file.name in origin.newer_than for origin in map(read_origin, later) if origin)


def inbox_rows(files: Sequence[Path], examples: Sequence[tuple[Example, ...]]) -> list[InboxRows]:
    """The examples of inbox files, given in order of ingestion, with what their origins say."""
    origins = [read_origin(file) for file in files]
    return [
        InboxRows(file, rows, origin.prefix, origin.newer_than) if origin else InboxRows(file, rows)
        for file, rows, origin in zip(files, examples, origins, strict=True)
    ]


def replaced_by(file: Path) -> int:
    """How many rows of earlier files this one replaces."""
    origin = read_origin(file)
    if origin is None or not origin.newer_than:
        return 0
    files = [other for other in inbox_files(file.parent) if other == file or other.name in origin.newer_than]
    rows = inbox_rows(files, [tuple(_rows(other)) for other in files])
    return len(current_rows(rows)[1])


def current_rows(files: Sequence[InboxRows]) -> tuple[list[tuple[Example, ...]], list[Quarantined]]:
    """The rows of each file, given in order of ingestion, that no newer version replaces; and the replaced ones.

    A row replaces one with its id and other content in the files that its file is a newer version of, unless both have
    times and the earlier one's is later. A row without an id replaces those with the same conversation and another
    output, if these do not occur in its file. A newer version keeps the source of the older one, and so its split.
    """
    number_of = {file.path.name: number for number, file in enumerate(files)}
    lost: dict[_Place, str] = {}
    sources: dict[_Place, str] = {}
    for number, file in enumerate(files):
        for older in sorted(number_of[name] for name in file.newer_than if name in number_of):
            if older < number:
                _replace(files, older, number, lost, sources)
    kept = [
        tuple(
            row.model_copy(update={"source": sources.get((n, i), row.source)})
            for i, row in enumerate(file.examples)
            if (n, i) not in lost
        )
        for n, file in enumerate(files)
    ]
    return kept, [
        Quarantined(reason=OLDER_VERSION, detail=f"newer in {winner}", example=files[n].examples[i])
        for (n, i), winner in sorted(lost.items())
    ]


def _replace(
    files: Sequence[InboxRows], older: int, newer: int, lost: dict[_Place, str], sources: dict[_Place, str]
) -> None:
    """Note the rows that lose, with the file that has the winner, and the sources that winners take over."""
    old, new = files[older], files[newer]
    by_key = {_key(row, new): index for index, row in enumerate(new.examples)}
    conversations: set[DedupKey] = {dedup_key(row) for row in new.examples if has_content_id(row)}
    for index, row in enumerate(old.examples):
        found = by_key.get(_key(row, old))
        if found is None:
            if has_content_id(row) and dedup_key(row) in conversations:
                lost.setdefault((older, index), new.path.name)
            continue
        winner = new.examples[found]
        if row.time and winner.time and row.time > winner.time:
            lost.setdefault((newer, found), old.path.name)
            continue
        sources.setdefault((newer, found), sources.get((older, index), row.source))
        if _content(row) != _content(winner):
            lost.setdefault((older, index), new.path.name)


def _key(row: Example, file: InboxRows) -> tuple[str, str]:
    """The id, and the source if it is not that of the file."""
    own = "" if row.source == file.path.stem.rpartition("-")[0] else row.source
    return own, bare(row.id, file.prefix)


def bare(id: str, prefix: str) -> str:
    """The id as it was in its file."""
    return id.removeprefix(f"{prefix}:") if prefix else id


def _content(row: Example) -> str:
    return row.model_dump_json(exclude={"id", "source"})

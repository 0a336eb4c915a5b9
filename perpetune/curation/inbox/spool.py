"""The examples of a file as they are read, kept on disk until all are known to be good."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from perpetune.curation.erased import Tombstones
from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.identity import unrelated_ids, with_content_id
from perpetune.curation.readers.options import ReadOptions
from perpetune.curation.readers.reader import TRAFFIC_FILE, ReadRow, opened_table, read_rows
from perpetune.records import Example

_BAR_AFTER = 2  # seconds


@dataclass(frozen=True)
class Summary:
    """What was read: counts of examples by schema, columns used and ignored, and what the user should know."""

    examples: int
    preferences: int
    rejected: tuple[Rejected, ...]
    schemas: dict[str, int]
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    unrelated: frozenset[str] = frozenset()


@dataclass
class _Tally:
    examples: int = 0
    preferences: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    schemas: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    renamed: Counter[str] = field(default_factory=Counter)

    def add(self, read: ReadRow) -> None:
        if read.schema:
            self.schemas[read.schema] += 1
        if len(self.columns) < 1_000:
            self.columns |= dict.fromkeys(read.columns)
        self.used |= read.used
        if read.renamed:
            self.renamed[read.renamed] += 1
        if isinstance(read.row, Rejected):
            self.rejected.append(read.row)
        else:
            self.examples += 1


def spool(
    path: Path, source: str, options: ReadOptions, folder: Path, shown: Path, erased: Tombstones | None = None
) -> Summary:
    """Read a file into `examples.jsonl` and `preferences.jsonl` of a folder, row by row. Raises PerpetuneError.

    A row that was erased is rejected, and its text kept nowhere.
    """
    tally = _Tally()
    with (
        opened_table(path, options, shown) as table,
        (folder / "examples.jsonl").open("w", encoding="utf-8") as examples,
        (folder / "preferences.jsonl").open("w", encoding="utf-8") as preferences,
    ):
        rows = tqdm(read_rows(table, shown, source, options), unit=" rows", delay=_BAR_AFTER, leave=False, disable=None)
        for number, each in enumerate(rows, start=1):
            read = _unless_erased(each, erased, shown, number)
            tally.add(read)
            if isinstance(read.row, Example):
                examples.write(read.row.model_dump_json(exclude_defaults=True) + "\n")
            if read.preference:
                tally.preferences += 1
                preferences.write(json.dumps(read.preference.line, ensure_ascii=False, default=str) + "\n")
        columns = dict.fromkeys(table.columns) | tally.columns
        notes = table.notes
    unrelated = unrelated_ids(lambda: spooled(folder))
    return Summary(
        tally.examples,
        tally.preferences,
        tuple(tally.rejected),
        dict(tally.schemas.most_common()),
        tuple(name for name in columns if name in tally.used),
        tuple(name for name in columns if name and name not in tally.used),
        (*notes, *_notes(tally, unrelated)),
        unrelated,
    )


def _unless_erased(read: ReadRow, erased: Tombstones | None, shown: Path, number: int) -> ReadRow:
    stone = erased.of(read.row) if erased is not None and isinstance(read.row, Example) else None
    if stone is None:
        return read
    rejected = Rejected(file=str(shown), line=number, reason=stone.sentence, raw="")
    return replace(read, row=rejected, preference=None)


def spooled(folder: Path, unrelated: frozenset[str] = frozenset()) -> Iterator[Example]:
    """The examples; those with `unrelated` ids get the hash of their content."""
    with (folder / "examples.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = Example.model_validate_json(line)
            yield with_content_id(row) if row.id in unrelated else row


def preference_lines(folder: Path) -> Iterator[str]:
    with (folder / "preferences.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n")


def _notes(tally: _Tally, unrelated: frozenset[str]) -> Iterator[str]:
    if unrelated:
        shown = ", ".join(sorted(unrelated)[:3]) + (", ..." if len(unrelated) > 3 else "")
        yield f"{len(unrelated):,} ids ({shown}) name different rows, which are told apart by their content instead"
    for claimed, count in tally.renamed.items():
        yield f"{count:,} rows claim the source `{claimed}`, which only the prediction log has: it is `{TRAFFIC_FILE}` now"

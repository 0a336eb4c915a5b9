"""Versions of a row: rows with one id of which the newest counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from perpetune.curation.duplicates.canonical import canonical_turns
from perpetune.curation.quarantine import EARLIEST, Quarantined
from perpetune.curation.readers.identity import alike as alike_texts
from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.splitting.assignment_record import has_own_id
from perpetune.records import Example

OLDER_VERSION = "same id as a newer row"

_Key = tuple[str, str]


def newest_versions(files: Sequence[Sequence[Example]]) -> tuple[list[Example], list[Quarantined]]:
    """Of rows with one source and id in several files, oldest file first, keep the newest; returns it and the others.

    A row with a later time is newer, whichever file it is in. Ids of two files that mostly name unlike rows, because
    each file numbers its rows from 1, say nothing: all these rows are kept.
    """
    restarting = _restarting(files)
    versions: dict[_Key, list[tuple[int, Example]]] = defaultdict(list)
    older: list[Quarantined] = []
    for number, rows in enumerate(files):
        for row in rows:
            known = versions[row.source, row.id]
            others = [each for each in known if each[0] != number and (each[0], number, row.source) not in restarting]
            if not has_own_id(row) or all(_equal(other, row) for _, other in others):
                known.append((number, row))
            elif any(_is_newer(other, row) for _, other in others):
                older.append(Quarantined(reason=OLDER_VERSION, example=row))
            else:
                older += [Quarantined(reason=OLDER_VERSION, example=other) for _, other in others]
                versions[row.source, row.id] = [each for each in known if each not in others] + [(number, row)]
    return [row for known in versions.values() for _, row in known], older


def with_one_source(rows: Sequence[Example]) -> list[Example]:
    """The rows, of which dated versions of one row in several sources have the source of the oldest.

    These are curated rows with one id, a similar input and different times: an export that was edited and saved under
    another name.
    """
    by_id: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        if has_own_id(row) and not is_traffic(row):
            by_id[row.id].append(row)
    source_of = {id_: _oldest_source(found) for id_, found in by_id.items() if _are_versions(found)}
    return [
        row.model_copy(update={"source": source_of[row.id]}) if row.id in source_of and not is_traffic(row) else row
        for row in rows
    ]


def _are_versions(rows: Sequence[Example]) -> bool:
    by_source = {row.source: row for row in rows}
    if len(by_source) < 2 or len({row.time for row in by_source.values()}) < len(by_source):
        return False
    return all(row.time for row in rows) and all(alike(rows[0], row) for row in rows[1:])


def _oldest_source(rows: Sequence[Example]) -> str:
    return min(rows, key=lambda row: (row.time or EARLIEST, row.source)).source


def _restarting(files: Sequence[Sequence[Example]]) -> set[tuple[int, int, str]]:
    """Pairs of files, and the source, in which most of the ids that they share name unlike rows."""
    by_id: dict[_Key, list[tuple[int, Example]]] = defaultdict(list)
    for number, rows in enumerate(files):
        for row in rows:
            by_id[row.source, row.id].append((number, row))
    votes: dict[tuple[int, int, str], int] = defaultdict(int)
    for (source, _), found in by_id.items():
        for place, (number, row) in enumerate(found):
            for other, later in found[place + 1 :]:
                if number != other:
                    votes[number, other, source] += 1 if alike(row, later) else -1
    return {pair for pair, count in votes.items() if count < 0}


def _is_newer(one: Example, other: Example) -> bool:
    return one.time is not None and other.time is not None and one.time > other.time


def _equal(one: Example, other: Example) -> bool:
    return (one.input, one.output, one.messages) == (other.input, other.output, other.messages)


def alike(one: Example, other: Example) -> bool:
    """Whether one input may be an edit of the other."""
    if canonical_turns(one) == canonical_turns(other):
        return True
    return alike_texts(one.input, other.input)

"""Step 2: make ids unique, without losing a row that shares its id with an unlike one."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from perpetune.curation.quarantine import EARLIEST, Quarantined, StepResult, in_order, together
from perpetune.curation.rows.references import with_all_references
from perpetune.curation.rows.versions import OLDER_VERSION, alike, with_one_source
from perpetune.curation.running.layout import RAW
from perpetune.curation.steps.step_files import write_batches
from perpetune.curation.text import fingerprint
from perpetune.records import Example, StoredRecords, read_jsonl

REPEATED = "repeated row"
BATCH = 5_000
"""Rows that are written at once."""


def validate(examples: Sequence[Example]) -> StepResult:
    """Make ids unique.

    Within a source, repeated rows are quarantined, and so are older versions of a row: rows with its id, an earlier
    time and a similar input. Other rows that share an id are different rows, whose ids are qualified: `ID~HASH`. Ids
    used by several sources (such as row numbers) become `SOURCE:ID`, unless the rows are dated versions of one row: it
    keeps the source of its oldest version. Whether rows contradict each other is for `clean`.
    """
    by_id: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in in_order(with_one_source(examples)):
        by_id[example.source, example.id].append(example)
    kept: list[Example] = []
    quarantined: list[Quarantined] = []
    for rows in by_id.values():
        chosen, dropped = _different(rows)
        kept += chosen
        quarantined += dropped
    return StepResult(tuple(_qualified(kept)), tuple(quarantined))


def _different(rows: Sequence[Example]) -> tuple[list[Example], list[Quarantined]]:
    """For rows with one id: the different rows among them, with unique ids; and repeated rows and older versions."""
    newest_first = sorted(rows, key=lambda row: row.time or EARLIEST, reverse=True)
    different: dict[str, Example] = {}
    dropped: list[Quarantined] = []
    for row in newest_first:
        content = _content(row)
        if content in different:
            dropped.append(Quarantined(reason=REPEATED, example=row))
        elif any(_is_older_version(row, newer) for newer in different.values()):
            dropped.append(Quarantined(reason=OLDER_VERSION, example=row))
            continue
        different[content] = with_all_references([different.get(content, row), row])
    found = list(different.values())
    return found if len(found) == 1 else [_with_hash(row) for row in found], dropped


def _is_older_version(row: Example, newer: Example) -> bool:
    return newer.time is not None and newer.time != row.time and alike(row, newer)


def _content(row: Example) -> str:
    """What a row says; as text, because tool calls cannot be hashed."""
    return row.model_dump_json(include={"input", "output", "messages"})


def _with_hash(row: Example) -> Example:
    content = fingerprint(row.input, row.output, [message.model_dump() for message in row.messages])
    return row.model_copy(update={"id": f"{row.id}~{content[:8]}"})


def _qualified(examples: Sequence[Example]) -> list[Example]:
    sources: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        sources[example.id].add(example.source)
    return [
        row.model_copy(update={"id": f"{row.source}:{row.id}"}) if len(sources[row.id]) > 1 else row for row in examples
    ]


def validated(rows: StoredRecords[Example]) -> Iterator[StepResult]:
    """As `validate`, for rows in canonical order. Only those that share an id with another row are in memory together."""
    shared = _share_an_id(rows)
    result = validate(tuple(rows.chosen(shared)))
    yield StepResult((), result.quarantined)
    kept = together(rows.chosen(not each for each in shared), result.kept)
    while batch := tuple(islice(kept, BATCH)):
        yield StepResult(batch, ())


def _share_an_id(rows: Iterable[Example]) -> list[bool]:
    """Whether each row has its id in common with another. Ids that only have one hash are compared too."""
    hashes = array("q", (hash(row.id) for row in rows))
    seen: set[int] = set()
    repeated: set[int] = set()
    for each in hashes:
        (repeated if each in seen else seen).add(each)
    return [each in repeated for each in hashes]


def run(workspace: Path) -> str:
    """Write `data/valid/`: examples, quarantined rows, counts."""
    superseded = workspace / RAW / "superseded.jsonl"
    older = read_jsonl(superseded, Quarantined) if superseded.is_file() else []
    batches = validated(StoredRecords(workspace / RAW / "examples.jsonl", Example))
    return write_batches(workspace, "validate", chain([StepResult((), tuple(older))], batches))

"""Step 2: make ids unique."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from perpetune.curation.layout import RAW, VALID
from perpetune.curation.quarantine import EARLIEST, Quarantined, StepResult, in_order
from perpetune.curation.readers.identity import alike, with_content_id
from perpetune.curation.references import with_all_references
from perpetune.curation.steps.step_files import write_step
from perpetune.records import Example, read_jsonl

REPEATED = "repeated row"
CONTRADICTED = "same id as a newer row"


def validate(examples: Sequence[Example]) -> StepResult:
    """Make ids unique.

    Within a source, repeated rows are quarantined. Of dated versions of a row the newest is kept. Other rows that share
    an id are different rows, and get the hashes of their content as ids. Ids used by several sources (such as row
    numbers) are qualified: `SOURCE:ID`.
    """
    by_id: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in in_order(examples):
        by_id[example.source, example.id].append(example)
    kept: list[Example] = []
    quarantined: list[Quarantined] = []
    for rows in by_id.values():
        chosen, dropped = _one_of(rows)
        kept += chosen
        quarantined += dropped
    return StepResult(tuple(_qualified(kept)), tuple(quarantined))


def _one_of(rows: Sequence[Example]) -> tuple[list[Example], list[Quarantined]]:
    """For rows with one id: the row to keep, if any, and the quarantined others."""
    newest_first = sorted(rows, key=lambda row: row.time or EARLIEST, reverse=True)
    different: dict[str, Example] = {}
    repeated: list[Quarantined] = []
    for row in newest_first:
        content = _content(row)
        if content in different:
            repeated.append(Quarantined(reason=REPEATED, example=row))
        different[content] = with_all_references([different.get(content, row), row])
    first, *others = different.values()
    if not others:
        return [first], repeated
    if _is_history([first, *others]):
        return [first], repeated + [Quarantined(reason=CONTRADICTED, example=row) for row in others]
    # The id is not that of a row, such as the number of a line in each of several files.
    return [with_content_id(row) for row in different.values()], repeated


def _content(row: Example) -> str:
    return row.model_dump_json(include={"input", "output", "messages"})


def _is_history(newest_first: Sequence[Example]) -> bool:
    """Whether the rows are dated versions of one."""
    times = [row.time for row in newest_first]
    return (
        times[0] is not None
        and len(set(times)) == len(times)
        and all(alike(newest_first[0].input, row.input) for row in newest_first)
    )


def _qualified(examples: Sequence[Example]) -> list[Example]:
    sources: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        sources[example.id].add(example.source)
    return [
        row.model_copy(update={"id": f"{row.source}:{row.id}"}) if len(sources[row.id]) > 1 else row for row in examples
    ]


def run(workspace: Path) -> str:
    """Write `data/valid/`: examples, quarantined rows, counts."""
    result = validate(read_jsonl(workspace / RAW / "examples.jsonl", Example))
    return write_step(workspace / VALID, result)

"""Step 2: make ids unique."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from perpetune.curation.layout import RAW, VALID
from perpetune.curation.quarantine import EARLIEST, Quarantined, StepResult, in_order
from perpetune.curation.references import with_all_references
from perpetune.curation.steps.step_files import write_step
from perpetune.records import Example, read_jsonl

REPEATED = "repeated row"
CONTRADICTED = "same id as a newer row"
AMBIGUOUS = "same id as a different row"


def validate(examples: Sequence[Example]) -> StepResult:
    """Make ids unique.

    Within a source, repeated rows are quarantined. Of different rows with one id the newest is kept, or none if their
    times are equal or missing. Ids used by several sources (such as row numbers) are qualified: `SOURCE:ID`.
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
    different: dict[object, Example] = {}
    repeated: list[Quarantined] = []
    for row in newest_first:
        content = (row.input, row.output, row.messages)
        if content in different:
            repeated.append(Quarantined(reason=REPEATED, example=row))
        different[content] = with_all_references([different.get(content, row), row])
    first, *others = different.values()
    if not others:
        return [first], repeated
    if first.time and first.time != others[0].time:
        return [first], repeated + [Quarantined(reason=CONTRADICTED, example=row) for row in others]
    detail = f"{len(different)} different rows of {first.source} have the id {first.id}"
    return [], repeated + [Quarantined(reason=AMBIGUOUS, detail=detail, example=row) for row in different.values()]


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

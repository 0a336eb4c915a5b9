"""Repair texts that were damaged on their way here: mojibake, and if asked for invisible characters, markup, boilerplate."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path

from perpetune.curation.pipeline import input_of
from perpetune.curation.quarantine import Quarantined, StepResult, in_order
from perpetune.curation.repairing.boilerplate import repeated_lines, trimmed
from perpetune.curation.repairing.invisible import without_invisible
from perpetune.curation.repairing.markup import without_markup
from perpetune.curation.repairing.mojibake import is_about_encodings, without_mojibake
from perpetune.curation.row_texts import changes, texts, with_inputs, with_outputs
from perpetune.curation.steps.step_files import write_step
from perpetune.curation.text import shortened
from perpetune.params import RepairParams, TaskParams
from perpetune.records import Example, read_jsonl

_MOST_ROUNDS = 20


def repair(examples: Sequence[Example], params: RepairParams, task: TaskParams) -> StepResult:
    """Repair every text; no row is quarantined.

    Mojibake is repaired in all texts, the rest in inputs only, because a model learns to write outputs as they are. A
    label is repaired only into one that other rows or the task have, so that a label never becomes a new one.
    """
    rows = in_order(examples)
    labels = {*(task.labels or ()), *(row.output for row in rows)} if task.kind == "classification" else None
    repaired = _until_stable(rows, lambda row: _repaired_row(row, params, labels), params)
    reported = _reported(repaired, params.repeated_lines) if params.boilerplate == "report" else ()
    changed = (change for before, after in zip(rows, repaired, strict=True) for change in changes(before, after))
    return StepResult(tuple(repaired), (), tuple(changed), tuple(reported))


def _until_stable(
    rows: Sequence[Example], repair_row: Callable[[Example], Example], params: RepairParams
) -> list[Example]:
    """Repair again what changed: what is decoded may be markup, and lines below a repeated line may be repeated too."""
    before, after = list(rows), [repair_row(row) for row in rows]
    for _ in range(_MOST_ROUNDS):
        if params.boilerplate == "remove":
            after = _trimmed(after, params.repeated_lines)
        if all(map(operator.is_, before, after)):
            break
        before, after = (
            after,
            [row if row is known else repair_row(row) for known, row in zip(before, after, strict=True)],
        )
    return after


def _repaired_row(row: Example, params: RepairParams, labels: set[str] | None) -> Example:
    row = _with_characters(row, params)
    return _with_encoding(row, labels) if params.mojibake else row


def _with_encoding(row: Example, labels: set[str] | None) -> Example:
    if all(text.isascii() for _, text in texts(row)) or any(is_about_encodings(text) for _, text in texts(row)):
        return row
    row = with_inputs(row, without_mojibake)
    if labels is None:
        return with_outputs(row, without_mojibake)
    return with_outputs(row, lambda text: fixed if (fixed := without_mojibake(text)) in labels else text)


def _with_characters(row: Example, params: RepairParams) -> Example:
    if params.markup:
        row = with_inputs(row, without_markup)
    return with_inputs(row, without_invisible) if params.invisible else row


def _reported(rows: Sequence[Example], ratio: float) -> list[Quarantined]:
    repeated = repeated_lines((row.input for row in rows), ratio)
    return [
        Quarantined(reason=reason, detail=shortened(part), example=row)
        for row in rows
        for reason, part in trimmed(row.input, repeated).removed
    ]


def _trimmed(rows: Sequence[Example], ratio: float) -> list[Example]:
    repeated = repeated_lines((row.input for row in rows), ratio)
    return [with_inputs(row, lambda text: trimmed(text, repeated).text) for row in rows]


def run(params: RepairParams, task: TaskParams, workspace: Path) -> str:
    """Write `data/repaired/`: examples, no quarantined rows, counts."""
    rows = read_jsonl(workspace / input_of("repair", workspace) / "examples.jsonl", Example)
    return write_step(workspace, "repair", repair(rows, params, task))

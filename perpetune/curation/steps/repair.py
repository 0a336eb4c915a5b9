"""Repair texts that were damaged on their way here: mojibake, and if asked for invisible characters, markup, boilerplate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from perpetune.curation.quarantine import Quarantined, StepResult, combined, in_order
from perpetune.curation.repairing.boilerplate import Ends, ends_of, repeated_lines, trimmed
from perpetune.curation.repairing.fixpoint import until_stable
from perpetune.curation.repairing.invisible import without_invisible
from perpetune.curation.repairing.markup import without_markup
from perpetune.curation.repairing.mojibake import is_about_encodings, without_mojibake
from perpetune.curation.rows.texts import changes, texts, with_inputs, with_outputs
from perpetune.curation.running.engine import IN_PROCESS, Engine, for_each
from perpetune.curation.running.pipeline import input_of
from perpetune.curation.steps.step_files import write_batches
from perpetune.curation.text import shortened
from perpetune.params import RepairParams, TaskParams
from perpetune.records import Example, StoredRecords

_MOST_ROUNDS = 20


def repair(
    examples: Iterable[Example], params: RepairParams, task: TaskParams, engine: Engine = IN_PROCESS
) -> StepResult:
    """Repair every text; no row is quarantined.

    Mojibake is repaired in all texts, the rest in inputs only, because a model learns to write outputs as they are. A
    label is repaired only into one that other rows or the task have, so that a label never becomes a new one.
    """
    return combined(repaired(in_order(examples), params, task, engine))


def repaired(
    rows: Collection[Example], params: RepairParams, task: TaskParams, engine: Engine = IN_PROCESS
) -> Iterator[StepResult]:
    """As `repair`, for rows in canonical order, which are read several times; the results of their batches."""
    is_labelled = task.kind == "classification"
    labels = frozenset((*(task.labels or ()), *(row.output for row in rows))) if is_labelled else None
    remedy = _Remedy(params, labels)
    if params.boilerplate == "remove":
        remedy = _until_stable(rows, remedy, engine)
    repeated = _repeated(rows, remedy, engine) if params.boilerplate == "report" else None
    return engine.batches(partial(_result, remedy=remedy, reported=repeated), rows)


@dataclass(frozen=True)
class _Remedy:
    """What is done to each row, whatever the others are.

    `labels` are those that a label may be repaired into; None for free text. `rounds` has the lines that many inputs
    have, to be removed with other boilerplate in each round.
    """

    params: RepairParams
    labels: frozenset[str] | None
    rounds: tuple[frozenset[str], ...] = ()

    def of(self, row: Example) -> Example:
        return self.with_last_round(row)[0]

    def with_last_round(self, row: Example) -> tuple[Example, bool]:
        """The row, and whether the last round changed it.

        What changed is repaired again: what is decoded may be markup.
        """
        if self.params.boilerplate != "remove":
            return until_stable(self._once, row), False
        before, after, is_changed = row, self._once(row), True
        for repeated in self.rounds:
            after = _trimmed(after, repeated)
            is_changed = after is not before
            before, after = after, self._once(after) if is_changed else after
        return after, is_changed

    def _once(self, row: Example) -> Example:
        return _repaired_row(row, self.params, self.labels)


def _until_stable(rows: Collection[Example], remedy: _Remedy, engine: Engine) -> _Remedy:
    """Rounds until none changes a row: lines below a repeated line may be repeated too."""
    for _ in range(_MOST_ROUNDS):
        remedy = replace(remedy, rounds=(*remedy.rounds, _repeated(rows, remedy, engine)))
        if not any(engine.batches(partial(_is_any_changed, remedy=remedy), rows)):
            break
    return remedy


def _is_any_changed(rows: Sequence[Example], remedy: _Remedy) -> bool:
    return any(remedy.with_last_round(row)[1] for row in rows)


def _repeated(rows: Collection[Example], remedy: _Remedy, engine: Engine) -> frozenset[str]:
    """The lines that many of the repaired inputs have."""
    return repeated_lines(for_each(partial(_ends, remedy=remedy), rows, engine), remedy.params.repeated_lines)


def _ends(rows: Sequence[Example], remedy: _Remedy) -> list[Ends]:
    return [ends_of(remedy.of(row).input) for row in rows]


def _result(rows: Sequence[Example], remedy: _Remedy, reported: frozenset[str] | None) -> StepResult:
    """The batch repaired, and reports of its boilerplate, with these lines that many inputs have, unless None."""
    kept = tuple(map(remedy.of, rows))
    changed = tuple(change for before, after in zip(rows, kept, strict=True) for change in changes(before, after))
    return StepResult(kept, (), changed, () if reported is None else tuple(_reported(kept, reported)))


def _repaired_row(row: Example, params: RepairParams, labels: frozenset[str] | None) -> Example:
    row = _with_characters(row, params)
    return _with_encoding(row, labels) if params.mojibake else row


def _with_encoding(row: Example, labels: frozenset[str] | None) -> Example:
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


def _reported(rows: Iterable[Example], repeated: frozenset[str]) -> Iterator[Quarantined]:
    return (
        Quarantined(reason=reason, detail=shortened(part), example=row)
        for row in rows
        for reason, part in trimmed(row.input, repeated).removed
    )


def _trimmed(row: Example, repeated: frozenset[str]) -> Example:
    return with_inputs(row, lambda text: trimmed(text, repeated).text)


def run(params: RepairParams, task: TaskParams, workspace: Path, engine: Engine = IN_PROCESS) -> str:
    """Write `data/repaired/`: examples, no quarantined rows, counts."""
    rows = StoredRecords(workspace / input_of("repair", workspace) / "examples.jsonl", Example)
    return write_batches(workspace, "repair", repaired(rows, params, task, engine))

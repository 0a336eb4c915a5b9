"""Step 3: tidy texts, and set aside what a model should not learn from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from perpetune.curation.dedup_key import dedup_key
from perpetune.curation.layout import CLEAN, VALID
from perpetune.curation.quarantine import EARLIEST, Quarantined, StepResult, in_order
from perpetune.curation.references import equivalent_outputs, with_all_references
from perpetune.curation.sources import is_traffic
from perpetune.curation.steps.step_files import write_step
from perpetune.curation.text import normalised, shortened, tidy
from perpetune.output_schema import InvalidOutput, OutputSchema
from perpetune.params import CleanParams, TaskParams
from perpetune.records import Example, read_jsonl

EMPTY = "nothing left after tidying"
LONG_INPUT = "input too long"
LONG_OUTPUT = "output too long"
UNKNOWN = "not one of the task's labels"
OUTVOTED = "most rows with this input say otherwise"
OUTDATED = "a newer row with this input says otherwise"
UNDECIDED = "rows with this input disagree, none prevails"
DUPLICATE = "a duplicate"
INVALID = "its output does not satisfy task.output_schema"
RARE = "a label seen too seldom"


def clean(examples: Sequence[Example], params: CleanParams, task: TaskParams) -> StepResult:
    """Tidy every text and set aside what a model should not learn from.

    That is, in this order: what is empty or too long, what does not satisfy the task's schema, unknown
    labels, answers that contradict each other, duplicates, and rare labels. Free text has no labels, and an
    input may have several answers.

    Rows from `traffic` are never compared with curated ones here: which of two wins depends on the
    holdouts, which `split` knows.
    """
    outcome = StepResult(tuple(tidied(row) for row in in_order(examples)), ())
    outcome = _drop(outcome, lambda row: _fault(row, params))
    if task.output_schema is not None:
        outcome = _canonical(outcome, OutputSchema(task.output_schema))
    if task.kind == "classification":
        outcome = StepResult(tuple(with_one_spelling(outcome.kept, task.labels)), outcome.quarantined)
        outcome = _drop(outcome, lambda row: UNKNOWN if task.labels and row.output not in task.labels else None)
        outcome = _by_dedup_key(outcome, _agreed)
    outcome = _drop_duplicates(outcome)
    if task.kind == "classification":
        counts = Counter(row.output for row in outcome.kept)
        outcome = _drop(outcome, lambda row: RARE if counts[row.output] < params.min_label_rows else None)
    return outcome


def tidied(row: Example) -> Example:
    """The example with each of its texts tidied."""
    messages = tuple(message.model_copy(update={"content": tidy(message.content)}) for message in row.messages)
    texts = {"input": tidy(row.input), "output": tidy(row.output), "messages": messages}
    return _with_references(row.model_copy(update=texts), tidy)


def _with_references(row: Example, change: Callable[[str], str]) -> Example:
    if not row.references:
        return row
    changed = dict.fromkeys(map(change, row.references))
    return row.model_copy(update={"references": tuple(each for each in changed if each and each != row.output)})


def with_one_spelling(examples: Sequence[Example], labels: Sequence[str] | None) -> list[Example]:
    """Write labels that differ in case or white space alone as the task does, or else as most rows do."""
    spellings: dict[str, str] = {}
    counts = Counter(row.output for row in examples)
    for label, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        spellings.setdefault(normalised(label), label)
    spellings |= {normalised(label): label for label in labels or ()}
    spelled = [row.model_copy(update={"output": spellings[normalised(row.output)]}) for row in examples]
    return [_with_references(row, lambda text: spellings.get(normalised(text), text)) for row in spelled]


def _canonical(outcome: StepResult, schema: OutputSchema) -> StepResult:
    """Write outputs as a model that is held to the schema can write them; set aside what does not satisfy it."""
    kept: list[Example] = []
    quarantined: list[Quarantined] = []
    for row in outcome.kept:
        try:
            written = row.model_copy(update={"output": schema.canonical(row.output)})
            kept.append(_with_references(written, schema.canonical))
        except InvalidOutput as fault:
            quarantined.append(Quarantined(reason=INVALID, detail=shortened(str(fault)), example=row))
    return StepResult(tuple(kept), (*outcome.quarantined, *quarantined))


def _fault(row: Example, params: CleanParams) -> str | None:
    if not row.input or not row.output:
        return EMPTY
    if sum(len(message.content) for message in row.messages) > params.max_input_chars:
        return LONG_INPUT
    if len(row.input) > params.max_input_chars:
        return LONG_INPUT
    return LONG_OUTPUT if len(row.output) > params.max_output_chars else None


def _drop(outcome: StepResult, fault: Callable[[Example], str | None]) -> StepResult:
    faults = [(row, fault(row)) for row in outcome.kept]
    return StepResult(
        kept=tuple(row for row, reason in faults if not reason),
        quarantined=outcome.quarantined
        + tuple(Quarantined(reason=reason, example=row) for row, reason in faults if reason),
    )


def _by_dedup_key(outcome: StepResult, decide: Callable[[Sequence[Example]], StepResult]) -> StepResult:
    """Decide on each set of rows that ask the same, curated rows and traffic apart."""
    asked = defaultdict(list)
    for row in outcome.kept:
        asked[is_traffic(row), dedup_key(row)].append(row)
    decided = [decide(rows) for rows in asked.values()]
    return StepResult(
        kept=tuple(row for part in decided for row in part.kept),
        quarantined=outcome.quarantined + tuple(row for part in decided for row in part.quarantined),
    )


def _agreed(rows: Sequence[Example]) -> StepResult:
    """Of rows that ask the same, those that give the one answer that prevails.

    Outputs that name each other as references are one answer.
    """
    alike = equivalent_outputs(rows)

    def answer_of(row: Example) -> str:
        return alike[normalised(row.output)]

    votes = Counter(map(answer_of, rows))
    if len(votes) == 1:
        return StepResult(tuple(rows), ())
    newest = max((row.time or EARLIEST for row in rows), default=EARLIEST)
    newest_answers = {answer_of(row) for row in rows if row.time == newest}
    if len(newest_answers) == 1:
        return _keep_answer(rows, answer_of, newest_answers.pop(), OUTDATED)
    (answer, most), (_, second) = votes.most_common(2)
    if most > second:
        return _keep_answer(rows, answer_of, answer, OUTVOTED)
    return StepResult((), tuple(Quarantined(reason=UNDECIDED, detail=_tally(rows), example=row) for row in rows))


def _keep_answer(rows: Sequence[Example], answer_of: Callable[[Example], str], answer: str, reason: str) -> StepResult:
    losers = [row for row in rows if answer_of(row) != answer]
    return StepResult(
        kept=tuple(row for row in rows if answer_of(row) == answer),
        quarantined=tuple(Quarantined(reason=reason, detail=_tally(rows), example=row) for row in losers),
    )


def _tally(rows: Iterable[Example]) -> str:
    return ", ".join(f"{output:.40} ({count})" for output, count in Counter(row.output for row in rows).most_common())


def _drop_duplicates(outcome: StepResult) -> StepResult:
    """Keep the newest of rows that ask and answer the same.

    Only within a group: which of two groups keeps a row would decide in which split it lies, and the
    frozen holdout would change when data is added. `split` sees to those.
    """
    alike = defaultdict(list)
    for row in outcome.kept:
        alike[is_traffic(row), row.group, dedup_key(row), normalised(row.output)].append(row)
    newest_first = [sorted(rows, key=lambda row: row.time or EARLIEST, reverse=True) for rows in alike.values()]
    return StepResult(
        kept=tuple(map(with_all_references, newest_first)),
        quarantined=outcome.quarantined
        + tuple(
            Quarantined(reason=DUPLICATE, detail=f"of {rows[0].id}", example=row)
            for rows in newest_first
            for row in rows[1:]
        ),
    )


def run(params: CleanParams, task: TaskParams, workspace: Path) -> str:
    """Write `data/clean/`: examples, those set aside, counts."""
    outcome = clean(read_jsonl(workspace / VALID / "examples.jsonl", Example), params, task)
    return write_step(workspace / CLEAN, outcome)

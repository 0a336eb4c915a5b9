"""Step 3: clean texts, and quarantine rows that a model should not be trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import BaseModel

from perpetune.curation.duplicates.canonical import variant_key
from perpetune.curation.duplicates.shared_keys import are_shared, digest
from perpetune.curation.quarantine import EARLIEST, Quarantined, StepResult, combined, in_order, together
from perpetune.curation.rows.dedup_key import dedup_key
from perpetune.curation.rows.label_key import label_key
from perpetune.curation.rows.references import equivalent_outputs, with_all_references
from perpetune.curation.rows.sources import is_by_rules, is_traffic
from perpetune.curation.running.engine import IN_PROCESS, Engine, batched, for_each
from perpetune.curation.running.pipeline import input_of
from perpetune.curation.splitting.assignment_record import AssignmentRecord, load_record
from perpetune.curation.steps.step_files import write_batches
from perpetune.curation.text import normalised, shortened, tidy, visible
from perpetune.files import lines_atomic
from perpetune.output_schema import InvalidOutput, OutputSchema
from perpetune.params import CleanParams, TaskParams
from perpetune.records import Example, StoredRecords, as_line

_Record = TypeVar("_Record", bound=BaseModel)

EMPTY = "empty input or output"
LONG_INPUT = "input too long"
LONG_OUTPUT = "output too long"
UNKNOWN = "label not in task.labels"
OUTVOTED = "most rows with this input have another output"
OUTDATED = "a newer row with this input has another output"
UNDECIDED = "rows with this input disagree, without a majority"
OUTRANKED = "labelled by rules, and by people too"
CONTRADICTS = "a row of the frozen holdout with this input has another output"
DUPLICATE = "duplicate"
INVALID = "output does not satisfy task.output_schema"
RARE = "label with too few rows"


def clean(
    examples: Iterable[Example],
    params: CleanParams,
    task: TaskParams,
    record: AssignmentRecord | None = None,
    engine: Engine = IN_PROCESS,
) -> StepResult:
    """Clean every text and quarantine rows that a model should not be trained on.

    In this order: empty or too long texts, outputs that do not satisfy the task's schema, unknown labels, conflicting
    labels, duplicates, and rare labels. Free text has no labels, and an input may have several outputs.

    Rows from `traffic` are not compared with curated ones, because which one is kept depends on the holdouts: see
    `split`. A row that the record has in the frozen holdout stays when others contradict or repeat it, or when its label
    becomes rare.
    """
    return combined(cleaned(in_order(examples), params, task, record, engine))


def cleaned(
    rows: Iterable[Example],
    params: CleanParams,
    task: TaskParams,
    record: AssignmentRecord | None = None,
    engine: Engine = IN_PROCESS,
) -> Iterator[StepResult]:
    """As `clean`, for rows in canonical order; the results of their batches.

    Between its parts the rows wait on disk. Only those that share a conversation with another row are in memory together.
    """
    is_frozen = record.is_frozen if record else _never
    with TemporaryDirectory(prefix="perpetune-") as folder:
        tidy_rows = StoredRecords(Path(folder) / "tidy.jsonl", Example)
        tidied_batches = engine.batches(partial(of_each_row, params=params, schema=task.output_schema), rows)
        yield from _kept_on_disk(tidied_batches, tidy_rows.path)
        if task.kind == "generation":
            yield from _without_repeated(tidy_rows, is_frozen, engine)
            return
        spelled = StoredRecords(Path(folder) / "spelled.jsonl", Example)
        yield from _kept_on_disk(_with_known_labels(tidy_rows, task.labels), spelled.path)
        yield from _without_contradictions(spelled, params, is_frozen, engine)


def _kept_on_disk(batches: Iterable[StepResult], path: Path) -> Iterator[StepResult]:
    """The results without the rows that they keep, which are written to a file."""
    with lines_atomic(path) as write:
        for batch in batches:
            for row in batch.kept:
                write(as_line(row))
            yield StepResult((), batch.quarantined)


def _with_known_labels(rows: Iterable[Example], labels: Sequence[str] | None) -> Iterator[StepResult]:
    """The rows with one spelling of each label, without those whose label is none of the task's."""
    spellings = spellings_of(rows, labels)
    for batch in batched(rows):
        spelled = tuple(_spelled(row, spellings) for row in batch)
        yield _drop(StepResult(spelled, ()), lambda row: UNKNOWN if labels and row.output not in labels else None)


def _without_repeated(
    rows: StoredRecords[Example], is_frozen: Callable[[Example], bool], engine: Engine
) -> Iterator[StepResult]:
    shared = are_shared(for_each(partial(_digests, key_of=dedup_key), rows, engine))
    result = _drop_duplicates(StepResult(tuple(rows.chosen(shared)), ()), is_frozen)
    yield StepResult((), result.quarantined)
    yield from (StepResult(batch, ()) for batch in batched(together(rows.chosen(~shared), result.kept)))


def _without_contradictions(
    rows: StoredRecords[Example], params: CleanParams, is_frozen: Callable[[Example], bool], engine: Engine
) -> Iterator[StepResult]:
    """The rows without conflicting labels, duplicates and rare labels."""
    key_of = variant_key if params.near_contradictions else dedup_key
    shared = are_shared(for_each(partial(_digests, key_of=key_of), rows, engine))
    compared = tuple(rows.chosen(shared))
    result = _resolve_conflicts(
        StepResult(compared, ()), for_each(partial(_keys, key_of=key_of), compared, engine), is_frozen
    )
    result = _drop_duplicates(result, is_frozen)
    yield StepResult((), result.quarantined)
    counts = Counter(row.output for row in chain(rows.chosen(~shared), result.kept))
    rare = {label for label, count in counts.items() if count < params.min_label_rows}
    for batch in batched(together(rows.chosen(~shared), result.kept)):
        yield _drop(StepResult(batch, ()), lambda row: RARE if row.output in rare and not is_frozen(row) else None)


def _digests(rows: Sequence[Example], key_of: Callable[[Example], object]) -> list[tuple[int, int]]:
    """Of what rows have in common that contradict each other, and of what duplicates have."""
    return [(digest(key_of(row)), digest(dedup_key(row))) for row in rows]


def of_each_row(
    examples: Sequence[Example], params: CleanParams, schema: Mapping[str, Any] | None = None
) -> StepResult:
    """The part of the step that looks at each row alone: tidy texts, lengths and the outputs' schema."""
    result = _drop(StepResult(tuple(map(tidied, examples)), ()), lambda row: _fault(row, params))
    return _canonical(result, OutputSchema(schema)) if schema is not None else result


def tidied(row: Example) -> Example:
    """The example with all texts cleaned."""
    messages = tuple(_changed(message, {"content": tidy(message.content)}) for message in row.messages)
    texts = {"input": tidy(row.input), "output": tidy(row.output), "said": tidy(row.said), "messages": messages}
    return _with_references(_changed(row, texts), tidy)


def _changed(record: _Record, values: Mapping[str, object]) -> _Record:
    """The record with these values: itself if it has them already, so that most rows are in memory once."""
    if all(getattr(record, name) == value for name, value in values.items()):
        return record
    return record.model_copy(update=values)


def _with_references(row: Example, change: Callable[[str], str]) -> Example:
    if not row.references:
        return row
    changed = dict.fromkeys(map(change, row.references))
    return row.model_copy(update={"references": tuple(each for each in changed if each and each != row.output)})


def spellings_of(rows: Iterable[Example], labels: Sequence[str] | None) -> dict[str, str]:
    """The one spelling of each label, by its `label_key`: the task's, or else the most frequent one."""
    counts = Counter(visible(row.output) for row in rows)
    spellings: dict[str, str] = {}
    for label, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        spellings.setdefault(label_key(label), label)
    return spellings | {label_key(label): label for label in labels or ()}


def _spelled(row: Example, spellings: Mapping[str, str]) -> Example:
    spelled = _changed(row, {"output": spellings[label_key(row.output)]})
    return _with_references(spelled, lambda text: spellings.get(label_key(text), text))


def _canonical(result: StepResult, schema: OutputSchema) -> StepResult:
    """Write outputs in the canonical form of constrained decoding; quarantine those that do not satisfy the schema."""
    kept: list[Example] = []
    quarantined: list[Quarantined] = []
    for row in result.kept:
        try:
            written = _changed(row, {"output": schema.canonical(row.output)})
            kept.append(_with_references(written, schema.canonical))
        except InvalidOutput as fault:
            quarantined.append(Quarantined(reason=INVALID, detail=shortened(str(fault)), example=row))
    return StepResult(tuple(kept), (*result.quarantined, *quarantined))


def _fault(row: Example, params: CleanParams) -> str | None:
    if not row.input or not row.output:
        return EMPTY
    if sum(len(message.content) for message in row.messages) > params.max_input_chars:
        return LONG_INPUT
    if len(row.input) > params.max_input_chars:
        return LONG_INPUT
    return LONG_OUTPUT if len(row.output) > params.max_output_chars else None


def _drop(result: StepResult, fault: Callable[[Example], str | None]) -> StepResult:
    faults = [(row, fault(row)) for row in result.kept]
    return StepResult(
        kept=tuple(row for row, reason in faults if not reason),
        quarantined=result.quarantined
        + tuple(Quarantined(reason=reason, example=row) for row, reason in faults if reason),
    )


def _never(_: Example) -> bool:
    return False


def _keys(rows: Sequence[Example], key_of: Callable[[Example], object]) -> list[object]:
    return [key_of(row) for row in rows]


def _resolve_conflicts(result: StepResult, keys: Iterable[object], is_frozen: Callable[[Example], bool]) -> StepResult:
    """Settle each set of rows with the same key, separately for curated rows and traffic."""
    by_key = defaultdict(list)
    for row, key in zip(result.kept, keys, strict=True):
        by_key[is_traffic(row), key].append(row)
    decided = [_settled_by_people(rows, is_frozen) for rows in by_key.values()]
    return StepResult(
        kept=tuple(row for part in decided for row in part.kept),
        quarantined=result.quarantined + tuple(row for part in decided for row in part.quarantined),
    )


def _settled_by_people(rows: Sequence[Example], is_frozen: Callable[[Example], bool]) -> StepResult:
    """As `_settled`, without rows that rules have labelled if people have labelled others."""
    ruled = [row for row in rows if is_by_rules(row)]
    if not ruled or len(ruled) == len(rows):
        return _settled(rows, is_frozen)
    found = _settled([row for row in rows if not is_by_rules(row)], is_frozen)
    outranked = tuple(Quarantined(reason=OUTRANKED, example=row) for row in ruled)
    return StepResult(found.kept, (*found.quarantined, *outranked))


def _settled(rows: Sequence[Example], is_frozen: Callable[[Example], bool]) -> StepResult:
    """The rows whose output counts: that of the frozen holdout, of the newest rows, or of the majority."""
    frozen = [row for row in rows if is_frozen(row)]
    if not frozen or len(frozen) == len(rows):
        return _majority_or_newest(rows)
    equal = equivalent_outputs(rows)
    known = {equal[normalised(row.output)] for row in frozen}
    agreeing = [row for row in rows if equal[normalised(row.output)] in known]
    others = [row for row in rows if equal[normalised(row.output)] not in known]
    return StepResult(
        tuple(agreeing),
        tuple(Quarantined(reason=CONTRADICTS, detail=_tally(rows), example=row) for row in others),
    )


def _majority_or_newest(rows: Sequence[Example]) -> StepResult:
    """Of rows with the same input, those with the newest output, or else that of the majority.

    Outputs that are references of each other count as the same.
    """
    equal = equivalent_outputs(rows)

    def answer_of(row: Example) -> str:
        return equal[normalised(row.output)]

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
    others = [row for row in rows if answer_of(row) != answer]
    return StepResult(
        kept=tuple(row for row in rows if answer_of(row) == answer),
        quarantined=tuple(Quarantined(reason=reason, detail=_tally(rows), example=row) for row in others),
    )


def _tally(rows: Iterable[Example]) -> str:
    return ", ".join(f"{output:.40} ({count})" for output, count in Counter(row.output for row in rows).most_common())


def _drop_duplicates(result: StepResult, is_frozen: Callable[[Example], bool]) -> StepResult:
    """Keep the newest of rows with the same input and output, or the one that is frozen.

    Only within a group: a choice between groups would move rows between splits, and the frozen holdout would change
    when data is added. `split` handles those.
    """
    equal = defaultdict(list)
    for row in result.kept:
        equal[is_traffic(row), row.group, dedup_key(row), normalised(row.output)].append(row)
    newest_first = [
        sorted(rows, key=lambda row: (is_frozen(row), row.time or EARLIEST), reverse=True) for rows in equal.values()
    ]
    return StepResult(
        kept=tuple(map(with_all_references, newest_first)),
        quarantined=result.quarantined
        + tuple(
            Quarantined(reason=DUPLICATE, detail=f"of {rows[0].id}", example=row)
            for rows in newest_first
            for row in rows[1:]
        ),
    )


def run(params: CleanParams, task: TaskParams, seed: int, workspace: Path, engine: Engine = IN_PROCESS) -> str:
    """Write `data/clean/`: examples, quarantined rows, counts. `seed` is that of the split, whose record it reads."""
    rows = StoredRecords(workspace / input_of("clean", workspace) / "examples.jsonl", Example)
    return write_batches(workspace, "clean", cleaned(rows, params, task, load_record(workspace, seed), engine))

"""The stage between `clean` and `split`: rows whose label is probably wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perpetune.curation.duplicates.near import NearDuplicates, near_duplicates, stars
from perpetune.curation.quarantine import Changed, Quarantined, StepResult, in_order
from perpetune.curation.running.engine import batched
from perpetune.curation.running.pipeline import input_of
from perpetune.curation.splitting.assignment_record import has_own_group, load_record
from perpetune.curation.steps.step_files import write_batches, write_step
from perpetune.curation.suspects import SUMMARY, SUSPECTS, LabelErrorSummary, Suspect
from perpetune.params import LabelErrorsParams, TaskParams
from perpetune.quality.features import NONE, Features, features_of
from perpetune.quality.judge import judgeable, opinions_of, suspects_of
from perpetune.records import Example, StoredRecords, write_jsonl
from perpetune.workspace import Workspace

NAME = "label_errors"
WRONG = "label is probably wrong"
SHOWN = 10
Embed = Callable[[Sequence[str]], Features]


@dataclass(frozen=True)
class Judged:
    """The rows after the step, the suspects (the most certain first), and the summary."""

    result: StepResult
    suspects: tuple[Suspect, ...]
    summary: LabelErrorSummary


def label_errors(
    rows: Sequence[Example],
    params: LabelErrorsParams,
    embed: Embed,
    is_frozen: Callable[[Example], bool] = lambda row: False,
) -> Judged:
    """Judge the labels, and report, quarantine or relabel the rows whose label is probably wrong.

    Rows of the frozen holdout are only reported: whoever changes them changes what all versions are compared on.
    """
    rows = in_order(rows)
    near = near_duplicates(rows)
    groups = _groups(rows, near)
    places, unjudged = judgeable(rows, groups, params.folds, params.max_rows)
    judged = [rows[place] for place in places]
    features = embed([row.input for row in judged]) if judged else NONE
    opinions = opinions_of(judged, features.vectors, [groups[place] for place in places], params.folds)
    found = suspects_of(opinions, _contradictions(judged, near))
    frozen = {(row.source, row.id) for row in judged if is_frozen(row)}
    suspects = tuple(each.model_copy(update={"is_frozen": (each.source, each.id) in frozen}) for each in found)
    summary = LabelErrorSummary(
        action=params.action,
        features=features.name,
        note=features.note,
        judged=len(judged),
        unjudged=unjudged,
        suspects=len(suspects),
        shown=suspects[:SHOWN],
    )
    return Judged(_acted_on(rows, suspects, params.action), suspects, summary)


def _groups(rows: Sequence[Example], near: NearDuplicates) -> list[str]:
    """What is in one fold: a group, or the near duplicates of a text, since those repeat each other's mistakes."""
    centres = stars({near.text_of(row) for row in rows}, near)
    return [row.group if has_own_group(row) else f"near {centres[near.text_of(row)]}" for row in rows]


def _contradictions(rows: Sequence[Example], near: NearDuplicates) -> dict[int, list[int]]:
    """By position: near duplicates of the row, one of each other label."""
    by_text: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_text[near.text_of(row)].append(place)
    found: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        text = near.text_of(row)
        others = (other for like in (text, *sorted(near.like(text))) for other in by_text.get(like, ()))
        by_label = {rows[other].output: other for other in others if rows[other].output not in row.right_outputs}
        if by_label:
            found[place] = list(by_label.values())
    return found


def _acted_on(rows: Sequence[Example], suspects: Sequence[Suspect], action: str) -> StepResult:
    by_row = {(each.source, each.id): each for each in suspects}
    kept: list[Example] = []
    quarantined: list[Quarantined] = []
    changed: list[Changed] = []
    reported: list[Quarantined] = []
    for row in rows:
        suspect = by_row.get((row.source, row.id))
        if suspect is None:
            kept.append(row)
        elif suspect.is_frozen or action == "report":
            kept.append(row)
            reported.append(Quarantined(reason=WRONG, detail=_detail(suspect), example=row))
        elif action == "quarantine":
            quarantined.append(Quarantined(reason=WRONG, detail=_detail(suspect), example=row))
        else:
            kept.append(_relabelled(row, suspect.suggested))
            changed.append(
                Changed(source=row.source, id=row.id, field="output", before=row.output, after=suspect.suggested)
            )
    return StepResult(tuple(kept), tuple(quarantined), tuple(changed), tuple(reported))


def _relabelled(row: Example, label: str) -> Example:
    return row.model_copy(update={"output": label, "references": ()})


def _detail(suspect: Suspect) -> str:
    return f"{suspect.suggested} is likelier ({suspect.suggested_probability:.0%} to {suspect.label_probability:.0%})"


def run(workspace: Workspace) -> str:
    """Write `data/label_errors/`: the rows, the quarantined ones, the suspects and a summary."""
    params = workspace.params
    stored = StoredRecords(workspace.root / input_of(NAME, workspace.root) / "examples.jsonl", Example)
    if params.label_errors.action == "off" or params.task.kind == "generation":
        return _passed_on(stored, params.task, workspace)
    rows = list(stored)
    record = load_record(workspace.root, params.split.seed)
    every_text = [row.input for row in rows]

    def embed(texts: Sequence[str]) -> Features:
        return features_of(texts, params.evaluate.encoder, workspace.assets, workspace.home, keep=every_text)

    judged = label_errors(rows, params.label_errors, embed, record.is_frozen)
    line = write_step(workspace.root, NAME, judged.result)
    write_jsonl(workspace.root / SUSPECTS, judged.suspects)
    write_jsonl(workspace.root / SUMMARY, [judged.summary])
    return f"{line}; {judged.summary.sentence}"


def _passed_on(rows: Iterable[Example], task: TaskParams, workspace: Workspace) -> str:
    """The step is off, or free text has no labels: the rows as they are, and no report of an earlier run."""
    line = write_batches(workspace.root, NAME, (StepResult(batch, ()) for batch in batched(rows)))
    for path in (SUSPECTS, SUMMARY):
        (workspace.root / path).unlink(missing_ok=True)
    return f"{line}; {'free text has no labels' if task.kind == 'generation' else 'label_errors.action is off'}"

"""What a refresh will take on this machine: each step with its rows, minutes, and what would shorten it.

Estimated from what this workspace has measured before (`.perpetune/pace.json`); before the first refresh from
constants that a slow machine keeps to, corrected as soon as the training has timed its own first passes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from perpetune.loop.curate import Curated, read_split
from perpetune.loop.first_version import is_first
from perpetune.loop.step_durations import (
    CURATE,
    DECIDE,
    EVALUATE,
    RELEASE,
    START_SECONDS,
    TRAIN,
    StepDurations,
    Work,
    assumed_durations,
    effort,
    measured_durations,
    read_durations,
    write_durations,
)
from perpetune.model.base import device_name
from perpetune.params import Params
from perpetune.policy.holdout_size import Holdouts, HoldoutWarning, holdout_warnings
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, tag
from perpetune.training.recipe import batch_size, most_minutes
from perpetune.training.schedule import FEWEST_STEPS
from perpetune.workspace import Workspace

ASSUMED_EPOCHS = 3.0


@dataclass(frozen=True)
class Step:
    """`work` is what is done, `seconds` what it should take; `shorter` names the settings that would shorten it."""

    name: str
    work: str
    seconds: float
    shorter: str = ""


@dataclass(frozen=True)
class Plan:
    """The steps in order for this work; `source` says where the times are from."""

    steps: tuple[Step, ...]
    source: str
    work: Work

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


def plan(workspace: Workspace, curated: Curated) -> Plan:
    """The plan for this data, at the pace that was measured here before."""
    work, known = _work(workspace, curated), read_durations(workspace)
    if known is not None:
        return make_plan(work, known, "as measured by the refreshes before")
    return make_plan(work, _guess(workspace, work), f"guessed for {_cores()} cores, before the first refresh")


def remember(workspace: Workspace, planned: Plan, taken: Mapping[str, float], training: float) -> None:
    """Keep what a refresh has measured, for the next plan."""
    before = read_durations(workspace) or _guess(workspace, planned.work)
    write_durations(workspace, measured_durations(planned.work, taken, before, training))


def log_holdout_warnings(workspace: Workspace, run: Run, curated: Curated) -> tuple[HoldoutWarning, ...]:
    """What the holdouts are too small to decide, kept in the run."""
    held = Holdouts(
        rows=curated.rows,
        labels=_held_out_labels(workspace),
        has_champion=registry.find(workspace.params.task.name, "champion") is not None,
    )
    foreseen = holdout_warnings(held, workspace.params)
    tag(run, {"foreseen": " ".join(map(str, foreseen)) or "The holdouts are large enough."})
    return foreseen


def _work(workspace: Workspace, curated: Curated) -> Work:
    params = workspace.params
    champion = registry.find(params.task.name, "champion")
    work = Work(
        curated.rows,
        systems=2 + (params.evaluate.few_shot_examples > 0) + (champion is not None),
        tuned=1 + (champion is not None and not is_first(champion.run_id)),
        labels=len(_labels(workspace, "train")),
        epochs=epochs_of(params),
        timed=2 * params.promote.timed_rows if champion else 0,
    )
    if params.train.epochs != "auto":
        return work
    rows, minutes = max(1, curated.rows.get("train", 0)), most_minutes(params.train, device_name())
    least = FEWEST_STEPS * batch_size(params.train, rows) / rows
    return replace(work, epochs=max(work.epochs, least), minutes=minutes, least_epochs=least)


def _guess(workspace: Workspace, work: Work) -> StepDurations:
    return assumed_durations(workspace.params, read_split(workspace, "train"), work.labels, _cores())


def _held_out_labels(workspace: Workspace) -> dict[str, int]:
    """The rows of each label that is trained on, also those that no holdout has."""
    held = _labels(workspace, "frozen") + _labels(workspace, "recent")
    return {label: held[label] for label in _labels(workspace, "train")}


def _labels(workspace: Workspace, split: str) -> Counter[str]:
    if workspace.params.task.kind == "generation":
        return Counter()
    return Counter(row.output for row in read_split(workspace, split))


def _cores() -> int:
    return os.cpu_count() or 1


def make_plan(work: Work, pace: StepDurations, source: str) -> Plan:
    """The plan for this work at this pace."""
    rows = work.rows.get("train", 0)
    per_row = pace.evaluate_row * effort(work.labels) / effort(pace.labels)
    training = START_SECONDS + pace.train_row * rows * work.epochs
    if work.minutes is not None:
        training = max(min(training, 60 * work.minutes), START_SECONDS + pace.train_row * rows * work.least_epochs)
    return Plan(
        (
            Step(CURATE, f"{sum(work.rows.values()):,} rows", pace.curate),
            Step(
                TRAIN,
                f"{rows:,} rows x {work.epochs:.2g} epochs",
                training,
                "train.epochs, train.minutes, mix.replay",
            ),
            Step(
                EVALUATE,
                f"{work.held_out:,} rows x {work.systems} systems",
                START_SECONDS + per_row * work.asked,
                "split.frozen, evaluate.few_shot_examples: 0",
            ),
            Step(DECIDE, "", pace.decide),
            Step(RELEASE, "", pace.release),
        ),
        source,
        work,
    )


def corrected(plan: Plan, seconds: float) -> Plan:
    """With the training's own forecast in place of the estimate."""
    steps = tuple(replace(step, seconds=seconds) if step.name == TRAIN else step for step in plan.steps)
    return replace(plan, steps=steps, source="corrected by the first passes of the training")


def as_lines(plan: Plan) -> list[str]:
    """The plan as lines of a log."""
    width = max(len(step.work) for step in plan.steps)
    head = f"about {_minutes(plan.seconds)} in all ({plan.source}):"
    rows = [
        f"  {step.name:<10}{step.work:<{width}}  {_minutes(step.seconds):>7}"
        + (f"  shorter by {step.shorter}" if step.shorter else "")
        for step in plan.steps
    ]
    return [head, *rows]


def as_line(plan: Plan) -> str:
    """The plan as one line of a log."""
    steps = ", ".join(f"{step.name} {_minutes(step.seconds)}" for step in plan.steps)
    return f"plan: about {_minutes(plan.seconds)} ({plan.source}): {steps}"


def as_table(plan: Plan) -> str:
    """The plan as a table in markdown."""
    rows = [f"| {step.name} | {step.work} | {_minutes(step.seconds)} | {step.shorter} |" for step in plan.steps]
    total = f"| in all | | {_minutes(plan.seconds)} | |"
    head = ["| step | rows | expected | what would shorten it |", "|---|---|---|---|"]
    return "\n".join([f"Times are {plan.source}.", "", *head, *rows, total]) + "\n"


def compared(plan: Plan, taken: Mapping[str, float]) -> str:
    """Planned versus taken, of the steps that were taken."""
    planned = {step.name: step.seconds for step in plan.steps if step.name in taken}
    each = ", ".join(f"{name} {_minutes(taken[name])} of {_minutes(planned[name])}" for name in planned)
    return f"took {_minutes(sum(taken.values()))}, planned {_minutes(sum(planned.values()))} ({each})"


@contextmanager
def timed(taken: MutableMapping[str, float], step: str) -> Iterator[None]:
    """Add what the block takes to the step's seconds."""
    began = time.monotonic()
    try:
        yield
    finally:
        taken[step] = taken.get(step, 0.0) + time.monotonic() - began


def epochs_of(params: Params) -> float:
    """Those of params.yaml; a number is assumed where the training finds it itself."""
    epochs: object = params.train.epochs
    return float(epochs) if isinstance(epochs, int | float) else ASSUMED_EPOCHS


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"

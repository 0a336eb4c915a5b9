"""The plan of a refresh: each step with its rows, expected duration, and the settings that would shorten it.

Durations are estimated from earlier refreshes of this workspace (`.perpetune/durations.json`), or before the first one
from constants of a slow machine; the training corrects its own after its first steps.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from perpetune.loop.curate import CuratedData, read_split
from perpetune.loop.first_version import is_first_version
from perpetune.loop.planning.step_durations import (
    CURATE,
    DECIDE,
    EVALUATE,
    RELEASE,
    START_SECONDS,
    TRAIN,
    StepDurations,
    Work,
    assumed_durations,
    measured_durations,
    read_durations,
    relative_row_cost,
    write_durations,
)
from perpetune.model.base import device_name
from perpetune.params import Params
from perpetune.policy.promotion.holdout_size import Holdouts, HoldoutWarning, holdout_warnings
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, tag
from perpetune.training.recipe import batch_size, time_limit
from perpetune.training.schedule import MIN_STEPS
from perpetune.workspace import Workspace

ASSUMED_EPOCHS = 3.0
NAMED_SECONDS = 10.0


@dataclass(frozen=True)
class Step:
    """A step's `work` in words, its expected `seconds`, and the settings that would make it `shorter`."""

    name: str
    work: str
    seconds: float
    shorter: str = ""


@dataclass(frozen=True)
class Plan:
    """The steps in order; `source` says where the durations come from."""

    steps: tuple[Step, ...]
    source: str
    work: Work

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


def plan(workspace: Workspace, curated: CuratedData) -> Plan:
    """The plan for this data, with durations measured in this workspace if there are any."""
    work, measured = _work(workspace, curated), read_durations(workspace)
    if measured is not None:
        return make_plan(work, measured, "measured in earlier refreshes")
    return make_plan(work, _assumed(workspace, work), f"estimated for {_cores()} cores, before the first refresh")


def save_durations(workspace: Workspace, planned: Plan, taken: Mapping[str, float], training: float) -> None:
    """Save the durations that a refresh has measured, for the next plan."""
    before = read_durations(workspace) or _assumed(workspace, planned.work)
    write_durations(workspace, measured_durations(planned.work, taken, before, training))


def log_holdout_warnings(workspace: Workspace, run: Run, curated: CuratedData) -> tuple[HoldoutWarning, ...]:
    """Warnings about holdouts that are too small, also logged as a tag of the run."""
    held = Holdouts(
        rows=curated.rows,
        labels=_held_out_labels(workspace),
        has_champion=registry.find(workspace.params.task.name, "champion") is not None,
    )
    warnings = holdout_warnings(held, workspace.params)
    tag(run, {"holdout.warnings": " ".join(map(str, warnings)) or "The holdouts are large enough."})
    return warnings


def _work(workspace: Workspace, curated: CuratedData) -> Work:
    params = workspace.params
    champion = registry.find(params.task.name, "champion")
    work = Work(
        curated.rows,
        systems=2 + (params.evaluate.few_shot_examples > 0) + (champion is not None),
        tuned=1 + (champion is not None and not is_first_version(champion.run_id)),
        labels=len(_labels(workspace, "train")),
        epochs=epochs_of(params),
        timed=2 * params.promote.timed_rows if champion else 0,
    )
    if params.train.epochs != "auto":
        return work
    rows, minutes = max(1, curated.rows.get("train", 0)), time_limit(params.train, device_name())
    least = MIN_STEPS * batch_size(params.train, rows) / rows
    return replace(work, epochs=max(work.epochs, least), minutes=minutes, least_epochs=least)


def _assumed(workspace: Workspace, work: Work) -> StepDurations:
    return assumed_durations(workspace.params, read_split(workspace, "train"), work.labels, _cores())


def _held_out_labels(workspace: Workspace) -> dict[str, int]:
    """Held-out rows by label, for every label of the training split (0 if no holdout has it)."""
    held = _labels(workspace, "frozen") + _labels(workspace, "recent")
    return {label: held[label] for label in _labels(workspace, "train")}


def _labels(workspace: Workspace, split: str) -> Counter[str]:
    if workspace.params.task.kind == "generation":
        return Counter()
    return Counter(row.output for row in read_split(workspace, split))


def _cores() -> int:
    return os.cpu_count() or 1


def make_plan(work: Work, durations: StepDurations, source: str) -> Plan:
    """The plan for this work with these durations."""
    rows = work.rows.get("train", 0)
    per_row = durations.evaluate_row * relative_row_cost(work.labels) / relative_row_cost(durations.labels)
    training = START_SECONDS + durations.train_row * rows * work.epochs
    if work.minutes is not None:
        least = START_SECONDS + durations.train_row * rows * work.least_epochs
        training = max(min(training, 60 * work.minutes), least)
    return Plan(
        (
            Step(CURATE, f"{sum(work.rows.values()):,} rows", durations.curate),
            Step(
                TRAIN,
                f"{rows:,} rows x {work.epochs:.2g} epochs",
                training,
                "train.epochs, train.minutes, mix.replay",
            ),
            Step(
                EVALUATE,
                f"{work.held_out:,} rows x {work.systems} systems",
                START_SECONDS + per_row * work.prompted_rows,
                "split.frozen, evaluate.few_shot_examples: 0",
            ),
            Step(DECIDE, "", durations.decide),
            Step(RELEASE, "", durations.release),
        ),
        source,
        work,
    )


def with_forecast(plan: Plan, seconds: float) -> Plan:
    """The plan with the training's forecast (in seconds) instead of the estimate."""
    steps = tuple(replace(step, seconds=seconds) if step.name == TRAIN else step for step in plan.steps)
    return replace(plan, steps=steps, source="corrected after the first training steps")


def plan_lines(plan: Plan) -> list[str]:
    """The plan as log lines."""
    width = max(len(step.work) for step in plan.steps)
    head = f"the refresh takes about {_minutes(plan.seconds)} ({plan.source}):"
    rows = [
        f"  {step.name:<10}{step.work:<{width}}  {_minutes(step.seconds):>7}"
        + (f"  shorter with {step.shorter}" if step.shorter else "")
        for step in plan.steps
    ]
    return [head, *rows]


def plan_line(plan: Plan) -> str:
    """The plan as one log line, which names the steps that take at least `NAMED_SECONDS`."""
    steps = ", ".join(f"{step.name} {_minutes(step.seconds)}" for step in plan.steps if step.seconds >= NAMED_SECONDS)
    return f"plan: about {_minutes(plan.seconds)} ({plan.source}){f': {steps}' if steps else ''}"


def plan_table(plan: Plan) -> str:
    """The plan as a Markdown table."""
    rows = [f"| {step.name} | {step.work} | {_minutes(step.seconds)} | {step.shorter} |" for step in plan.steps]
    total = f"| total | | {_minutes(plan.seconds)} | |"
    head = ["| step | rows | expected | settings that shorten it |", "|---|---|---|---|"]
    return "\n".join([f"Durations are {plan.source}.", "", *head, *rows, total]) + "\n"


def planned_vs_taken(plan: Plan, taken: Mapping[str, float]) -> str:
    """A line that compares planned and actual durations of the steps that ran."""
    planned = {step.name: step.seconds for step in plan.steps if step.name in taken}
    steps = ", ".join(f"{name} {_minutes(taken[name])} of {_minutes(planned[name])}" for name in planned)
    return f"took {_minutes(sum(taken.values()))}, planned {_minutes(sum(planned.values()))} ({steps})"


def epochs_of(params: Params) -> float:
    """`train.epochs`; `ASSUMED_EPOCHS` if it is "auto"."""
    epochs: object = params.train.epochs
    return float(epochs) if isinstance(epochs, int | float) else ASSUMED_EPOCHS


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"

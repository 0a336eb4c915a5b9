"""How long the steps of a refresh take on this machine: measured, or guessed before the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from perpetune.files import write_atomic
from perpetune.params import Params
from perpetune.records import Example
from perpetune.workspace import Workspace

CURATE, TRAIN, EVALUATE, DECIDE, RELEASE = "curate", "fine-tune", "evaluate", "decide", "release"
CHARS_PER_TOKEN = 4
PROMPT_TOKENS = 12  # of the chat format, around an input and an output
# A core with AVX2 alone: SmolLM2-135M trains 240 tokens/s on two, and reads what it is asked three times as fast.
TRAINED_PER_CORE = 120.0
READ_PER_CORE = 360.0
WRITTEN_PER_CORE = 7.0
SECONDS_PER_LABEL = 0.02  # of a row and core, over and above reading it
START_SECONDS = 20.0  # loading the base, once for training and once for evaluating
CLEAR_ROWS = 80  # of a holdout, after which the place of a prompted system mostly is clear
HEAD_ROW = 0.1  # what a row costs that is answered by a label head, beside one that a prompted system answers
SOME = 200  # rows that are looked at for the length of all


@dataclass(frozen=True)
class StepDurations:
    """Seconds that this machine took: for a training row and epoch, a row asked of a prompted system, and other steps.

    `labels` are those of the task when it was measured: with more of them, evaluating takes longer.
    """

    train_row: float
    evaluate_row: float
    curate: float
    decide: float
    release: float
    labels: int


@dataclass(frozen=True)
class Work:
    """What is to be done: rows of each split, systems that answer the holdouts, labels (0 for free text), epochs.

    `tuned` of the systems answer every row, the prompted ones until their place is clear. `timed` requests are made for
    latency and cost. Training ends within so many `minutes`, but never before `least_epochs`; None is no limit.
    """

    rows: Mapping[str, int]
    systems: int
    tuned: int
    labels: int
    epochs: float
    timed: int = 0
    minutes: float | None = None
    least_epochs: float = 0.0

    @property
    def held_out(self) -> int:
        return self.rows.get("frozen", 0) + self.rows.get("recent", 0)

    @property
    def asked(self) -> float:
        """How many rows asked of a prompted system the evaluation is worth."""
        until_clear = sum(min(self.rows.get(holdout, 0), CLEAR_ROWS) for holdout in ("frozen", "recent"))
        every = self.held_out * (HEAD_ROW if self.labels else 1.0)
        return (self.systems - self.tuned) * until_clear + self.tuned * every + self.timed


_PACES = TypeAdapter(dict[str, StepDurations])


def assumed_durations(params: Params, some: Sequence[Example], labels: int, cores: int) -> StepDurations:
    """Before anything was measured: from the length of the rows and the number of cores."""
    chars = [len(row.input) + len(row.output) + len(params.task.instruction) for row in some[:SOME]] or [200]
    tokens = sum(chars) / len(chars) / CHARS_PER_TOKEN + PROMPT_TOKENS
    answer = sum(len(row.output) for row in some[:SOME]) / max(len(some[:SOME]), 1) / CHARS_PER_TOKEN
    saying = SECONDS_PER_LABEL * labels if labels else answer / WRITTEN_PER_CORE
    return StepDurations(
        train_row=tokens / TRAINED_PER_CORE / cores,
        evaluate_row=(tokens / READ_PER_CORE + saying) / cores,
        curate=10.0,
        decide=5.0,
        release=5.0,
        labels=labels,
    )


def measured_durations(work: Work, taken: Mapping[str, float], before: StepDurations, training: float) -> StepDurations:
    """What a refresh has shown. `training` are the seconds of its training: less than that went by where it was over
    before this process began, which says nothing of the pace."""
    rows, asked = work.rows.get("train", 0) * work.epochs, work.asked
    whole = taken.get(TRAIN, 0.0) >= training
    return StepDurations(
        train_row=_rate(taken[TRAIN], rows) if whole and rows else before.train_row,
        evaluate_row=_rate(taken[EVALUATE], asked) if asked else before.evaluate_row,
        curate=taken.get(CURATE, before.curate),
        decide=taken.get(DECIDE, before.decide),
        release=taken.get(RELEASE, before.release),
        labels=work.labels,
    )


def _rate(seconds: float, rows: float) -> float:
    return max(seconds - START_SECONDS, 0.1 * seconds) / rows


def read_durations(workspace: Workspace) -> StepDurations | None:
    """What was measured for this task, base and method; None before the first refresh."""
    return _read(workspace).get(_key(workspace.params))


def write_durations(workspace: Workspace, pace: StepDurations) -> None:
    """Keep it for the next plan."""
    known = {**_read(workspace), _key(workspace.params): pace}
    write_atomic(_file(workspace), _PACES.dump_json(known, indent=2).decode() + "\n")


def _read(workspace: Workspace) -> dict[str, StepDurations]:
    """{} where the file is missing, broken or another release's: it is only an estimate."""
    try:
        return _PACES.validate_json(_file(workspace).read_bytes())
    except (OSError, ValidationError):
        return {}


def _file(workspace: Workspace) -> Path:
    return workspace.home / "pace.json"


def _key(params: Params) -> str:
    return f"{params.task.name}, {params.base.model}, {params.train.method}"


def relative_row_cost(labels: int) -> float:
    """Of a row with so many labels, beside one with two: on two cores 164 ms were measured for 2 and 444 for 27."""
    return 1 + 0.068 * max(labels - 2, 0)

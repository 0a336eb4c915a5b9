"""Durations of the steps of a refresh on this machine: measured, or assumed before the first refresh."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
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
# Tokens per second and core with AVX2 only: SmolLM2-135M trains 240 tokens/s on two cores and prefills three times as fast.
TRAINED_PER_CORE = 120.0
PREFILLED_PER_CORE = 360.0
GENERATED_PER_CORE = 7.0
SECONDS_PER_LABEL = 0.02  # of scoring one label, per row and core
START_SECONDS = 20.0  # loading the base, once for training and once for evaluating
ROWS_UNTIL_CLEAR = 80  # of a holdout, after which a prompted system usually stops early
HEAD_ROW = 0.1  # cost of a row answered by a label head, relative to a prompted system
SAMPLE_ROWS = 200  # to estimate the mean length of a row


@dataclass(frozen=True)
class StepDurations:
    """Seconds on this machine: per training row and epoch, per row of a prompted system, and of the other steps.

    `labels` is the number of labels of the task when measured: evaluation takes longer with more of them.
    """

    train_row: float
    evaluate_row: float
    curate: float
    decide: float
    release: float
    labels: int


@dataclass(frozen=True)
class Work:
    """The work of a refresh: rows by split, number of evaluated systems, labels (0 for free text), epochs.

    `tuned` of the systems answer every row, prompted ones may stop early. `timed` requests measure latency and cost.
    Training stops after `minutes` (None: no limit), but not before `least_epochs`.
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
    def prompted_rows(self) -> float:
        """The cost of the evaluation in rows answered by a prompted system."""
        until_clear = sum(min(self.rows.get(holdout, 0), ROWS_UNTIL_CLEAR) for holdout in ("frozen", "recent"))
        every = self.held_out * (HEAD_ROW if self.labels else 1.0)
        return (self.systems - self.tuned) * until_clear + self.tuned * every + self.timed


_DURATIONS = TypeAdapter(dict[str, StepDurations])


def assumed_durations(params: Params, some: Sequence[Example], labels: int, cores: int) -> StepDurations:
    """Durations assumed from the length of the rows and the number of cores."""
    chars = [len(row.input) + len(row.output) + len(params.task.instruction) for row in some[:SAMPLE_ROWS]] or [200]
    tokens = sum(chars) / len(chars) / CHARS_PER_TOKEN + PROMPT_TOKENS
    answer = sum(len(row.output) for row in some[:SAMPLE_ROWS]) / max(len(some[:SAMPLE_ROWS]), 1) / CHARS_PER_TOKEN
    decoding = SECONDS_PER_LABEL * labels if labels else answer / GENERATED_PER_CORE
    return StepDurations(
        train_row=tokens / TRAINED_PER_CORE / cores,
        evaluate_row=(tokens / PREFILLED_PER_CORE + decoding) / cores,
        curate=10.0,
        decide=5.0,
        release=5.0,
        labels=labels,
    )


def measured_durations(work: Work, taken: Mapping[str, float], before: StepDurations, training: float) -> StepDurations:
    """Durations measured by a refresh. `taken` has the seconds of each step, `training` those of the training itself.

    If the step took less than `training`, the training ended in an earlier process and its duration is not measured.
    """
    rows, prompted_rows = work.rows.get("train", 0) * work.epochs, work.prompted_rows
    whole = taken.get(TRAIN, 0.0) >= training
    return StepDurations(
        train_row=_per_row(taken[TRAIN], rows) if whole and rows else before.train_row,
        evaluate_row=_per_row(taken[EVALUATE], prompted_rows) if prompted_rows else before.evaluate_row,
        curate=taken.get(CURATE, before.curate),
        decide=taken.get(DECIDE, before.decide),
        release=taken.get(RELEASE, before.release),
        labels=work.labels,
    )


def _per_row(seconds: float, rows: float) -> float:
    return max(seconds - START_SECONDS, 0.1 * seconds) / rows


@contextmanager
def timed(taken: MutableMapping[str, float], step: str) -> Iterator[None]:
    """Add the block's duration to the step's seconds in `taken`."""
    began = time.monotonic()
    try:
        yield
    finally:
        taken[step] = taken.get(step, 0.0) + time.monotonic() - began


def read_durations(workspace: Workspace) -> StepDurations | None:
    """Durations measured for this task, base and method; None before the first refresh."""
    return _read(workspace).get(_key(workspace.params))


def write_durations(workspace: Workspace, durations: StepDurations) -> None:
    """Save the durations for the next plan."""
    known = {**_read(workspace), _key(workspace.params): durations}
    write_atomic(_file(workspace), _DURATIONS.dump_json(known, indent=2).decode() + "\n")


def _read(workspace: Workspace) -> dict[str, StepDurations]:
    """{} if the file is missing, broken or of another release, because it is only an estimate."""
    file = _file(workspace)
    if not file.is_file():
        file = workspace.home / "pace.json"  # its former name
    try:
        return _DURATIONS.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return {}


def _file(workspace: Workspace) -> Path:
    return workspace.home / "durations.json"


def _key(params: Params) -> str:
    return f"{params.task.name}, {params.base.model}, {params.train.method}"


def relative_row_cost(labels: int) -> float:
    """The cost of a row with so many labels, relative to 2: on two cores 164 ms were measured for 2, 444 ms for 27."""
    return 1 + 0.068 * max(labels - 2, 0)

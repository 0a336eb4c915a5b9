"""When a run warms up, looks at validation, cools down and ends, in optimizer steps.

A number of epochs is trained on a cosine (Loshchilov and Hutter, SGDR, 2016). With `epochs: auto` the rate stays as it
is until validation no longer improves, and then falls to 0 in a fifth of the steps done so far: a schedule that need not
know its end (Hägele et al. 2024, Scaling laws and compute-optimal training beyond fixed training durations,
arXiv:2405.18392).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count, takewhile

from perpetune.params import TrainParams

COOLING = 0.2  # of the steps before it
PATIENCE = 2  # validations without improvement, if train.early_stopping_patience does not say
LEAST_STEPS, LEAST_EPOCHS = 60, 2
FEWEST_STEPS = round(LEAST_STEPS * (1 + COOLING))  # of a run with `epochs: auto`, however little time it has
MOST_STEPS, MOST_EPOCHS = 200, 10  # whichever is more
UNVALIDATED_EPOCHS = 3.0


@dataclass(frozen=True)
class Schedule:
    """`steps` is the last step; while `open_ended` it is the most that there may be, and the rate does not fall yet."""

    steps: int
    warmup: int
    cooling_from: int
    validate_at: tuple[int, ...]
    least: int = 0
    patience: float = math.inf
    stop_at_once: bool = False
    cosine: bool = False
    open_ended: bool = False

    def rate(self, step: int) -> float:
        """Of the learning rate, from 0 to 1."""
        if step <= self.warmup:
            return step / self.warmup
        if self.cosine:
            return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))
        if step <= self.cooling_from:
            return 1.0
        return (self.steps - step + 1) / (self.steps - self.cooling_from + 1)

    def stale(self, best_step: int, step: int) -> int:
        """How many validations there were since the best one."""
        return sum(best_step < checked <= step for checked in self.validate_at)

    def after(self, step: int, best_step: int, *, time_is_up: bool) -> Schedule:
        """What is left once a step is done: training ends or cools down if it no longer helps, or must end in time."""
        stale = step in self.validate_at and self.stale(best_step, step) >= self.patience
        if self.stop_at_once:
            return replace(self, steps=step) if stale else self
        if not self.open_ended or not ((time_is_up and step >= LEAST_STEPS) or (stale and step >= self.least)):
            return self
        return self._cooled(step)

    def _cooled(self, step: int) -> Schedule:
        last = min(self.steps, step + max(1, round(COOLING * step)))
        checks = tuple(check for check in self.validate_at if check <= step and check < last)
        return replace(self, steps=last, cooling_from=step, validate_at=(*checks, last), open_ended=False)


def fewest_steps(schedule: Schedule) -> int:
    """`FEWEST_STEPS`, if the schedule has so many."""
    return min(schedule.steps, FEWEST_STEPS)


def schedule_of(rows: int, params: TrainParams, batch_size: int, *, validates: bool) -> Schedule:
    """The schedule of a run over so many training rows."""
    per_epoch = rows / batch_size
    if params.epochs != "auto":
        return _fixed(max(1, round(params.epochs * per_epoch)), params, validates=validates)
    if not validates:
        return _constant(max(LEAST_STEPS, round(UNVALIDATED_EPOCHS * per_epoch)), params)
    most = max(MOST_STEPS, round(MOST_EPOCHS * per_epoch))
    every = max(1, min(round(per_epoch), most // 10))
    checks = (*takewhile(lambda step: step < most, count(every, every)), most)
    return replace(
        _constant(most, params),
        # A share of the most would be too slow a start for a run that ends early.
        warmup=_warmup(LEAST_STEPS, params),
        validate_at=checks,
        least=min(most, max(LEAST_STEPS, round(LEAST_EPOCHS * per_epoch))),
        patience=params.early_stopping_patience or PATIENCE,
        open_ended=True,
    )


def _fixed(steps: int, params: TrainParams, *, validates: bool) -> Schedule:
    checks = sorted({math.ceil(steps * (turn + 1) / params.validations) for turn in range(params.validations)})
    return Schedule(
        steps,
        _warmup(steps, params),
        steps,
        tuple(checks) if validates else (),
        patience=params.early_stopping_patience or math.inf,
        stop_at_once=params.early_stopping_patience is not None,
        cosine=True,
    )


def _constant(steps: int, params: TrainParams) -> Schedule:
    return Schedule(steps, _warmup(steps, params), round(steps / (1 + COOLING)), ())


def _warmup(steps: int, params: TrainParams) -> int:
    return max(1, round(steps * params.warmup_ratio))

"""Optuna's search under a budget of device time, whatever a trial trains.

Proposals come from TPE (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import optuna
from optuna.trial import TrialState

from perpetune.params import TuneParams
from perpetune.training.trainer import Progress

State = Literal["finished", "pruned", "stopped"]

# A budget pays for about a dozen trials: Optuna's own ten at random would leave two for what was learned.
RANDOM_TRIALS = 5
# The median of fewer is the judgement of one.
FINISHED_BEFORE_PRUNING = 3
# At the first, settings differ mostly in how far their learning rate has come.
VALIDATIONS_BEFORE_PRUNING = 1

_TOLD: dict[State, TrialState] = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "stopped": TrialState.FAIL,
}


@dataclass(frozen=True)
class Settings:
    """What is searched for."""

    rank: int
    learning_rate: float
    epochs: float


@dataclass(frozen=True)
class Trial:
    """One try, the first is number 1. Only a finished one has a `validation_loss`, the lowest it reached."""

    number: int
    settings: Settings
    state: State
    validation_loss: float | None
    minutes: float


class TrialPruned(Exception):
    """Raised into a trial: to go on would not pay, or there is nothing left to pay with."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.state: State = state


# Told of every step and of the device minutes used so far; raises GivenUp.
Judge = Callable[[Progress, float], None]
# Trains with the settings of the trial of this number and returns the lowest validation loss.
Attempt = Callable[[int, Settings, Judge], float]


def search(params: TuneParams, now: Settings, attempt: Attempt) -> Iterator[Trial]:
    """Try today's settings, then others while the budget lasts; yields each trial as it ends."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=params.seed),
        pruner=optuna.pruners.MedianPruner(FINISHED_BEFORE_PRUNING, n_warmup_steps=VALIDATIONS_BEFORE_PRUNING + 1),
    )
    study.enqueue_trial(asdict(now))
    left = params.minutes
    for number in range(1, params.trials + 1):
        asked = study.ask()
        settings = _proposed(asked, params) if number > 1 else _today(asked, params, now)
        trial = _try(asked, number, settings, left, attempt)
        study.tell(asked, trial.validation_loss, _TOLD[trial.state])
        yield trial
        left -= trial.minutes
        if left <= 0:
            return


def _today(asked: optuna.Trial, params: TuneParams, now: Settings) -> Settings:
    with warnings.catch_warnings():
        # Today's settings are the measure wherever they lie.
        warnings.filterwarnings("ignore", message="Fixed parameter .* is out of range", category=UserWarning)
        _proposed(asked, params)
    return now


def _proposed(asked: optuna.Trial, params: TuneParams) -> Settings:
    return Settings(
        asked.suggest_int("rank", *params.rank, log=True),
        _short(asked.suggest_float("learning_rate", *params.learning_rate, log=True), params.learning_rate),
        _short(asked.suggest_float("epochs", *params.epochs), params.epochs),
    )


def _short(value: float, span: tuple[float, float]) -> float:
    """Three digits, as a person would write it: what is tried is what may be written into params.yaml."""
    return min(max(float(f"{value:.3g}"), span[0]), span[1])


def _try(asked: optuna.Trial, number: int, settings: Settings, left: float, attempt: Attempt) -> Trial:
    used, validations = 0.0, 0

    def judge(progress: Progress, minutes: float) -> None:
        nonlocal used, validations
        used = minutes
        if progress.validation_loss is not None:
            validations += 1
            # By number, not by step: runs of different lengths are compared at the same share of their steps.
            asked.report(progress.validation_loss, validations)
        if progress.step == progress.steps:
            return  # all of it is paid for
        if minutes >= left:
            raise TrialPruned("stopped")
        if progress.validation_loss is not None and _hopeless(asked, progress.validation_loss):
            raise TrialPruned("pruned")

    try:
        loss = attempt(number, settings, judge)
    except TrialPruned as end:
        return Trial(number, settings, end.state, None, used)
    if not math.isfinite(loss):
        return Trial(number, settings, "pruned", None, used)
    return Trial(number, settings, "finished", loss, used)


def _hopeless(asked: optuna.Trial, loss: float) -> bool:
    return not math.isfinite(loss) or asked.should_prune()

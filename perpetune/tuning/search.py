"""Hyperparameter search with Optuna under a budget of device time.

The sampler is TPE (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011).
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

# A budget allows about a dozen trials; Optuna's default of ten random ones would leave two for TPE.
RANDOM_TRIALS = 5
# The median of fewer trials is too noisy.
FINISHED_BEFORE_PRUNING = 3
# At the first validation, trials differ mostly in their learning-rate warm-up.
VALIDATIONS_BEFORE_PRUNING = 1

_OPTUNA_STATES: dict[State, TrialState] = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "stopped": TrialState.FAIL,
}


@dataclass(frozen=True)
class Settings:
    """The hyperparameters that are searched."""

    rank: int
    learning_rate: float
    epochs: float


@dataclass(frozen=True)
class Trial:
    """A trial, numbered from 1. `validation_loss` is the lowest one reached, None unless finished."""

    number: int
    settings: Settings
    state: State
    validation_loss: float | None
    minutes: float


class TrialPruned(Exception):
    """Raised in a trial to end it: it is pruned, or the budget is used up ("stopped")."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.state: State = state


# Called at every step with the device minutes used so far; raises TrialPruned.
OnProgress = Callable[[Progress, float], None]
# Trains with the settings of a trial (by number) and returns the lowest validation loss.
TrainTrial = Callable[[int, Settings, OnProgress], float]


def search(params: TuneParams, now: Settings, train_trial: TrainTrial) -> Iterator[Trial]:
    """Try the current settings, then others within the budget; yields each trial when it ends."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=params.seed),
        pruner=optuna.pruners.MedianPruner(FINISHED_BEFORE_PRUNING, n_warmup_steps=VALIDATIONS_BEFORE_PRUNING + 1),
    )
    study.enqueue_trial(asdict(now))
    left = params.minutes
    for number in range(1, params.trials + 1):
        optuna_trial = study.ask()
        settings = _suggest(optuna_trial, params) if number > 1 else _suggest_current(optuna_trial, params, now)
        trial = _run_trial(optuna_trial, number, settings, left, train_trial)
        study.tell(optuna_trial, trial.validation_loss, _OPTUNA_STATES[trial.state])
        yield trial
        left -= trial.minutes
        if left <= 0:
            return


def _suggest_current(optuna_trial: optuna.Trial, params: TuneParams, now: Settings) -> Settings:
    with warnings.catch_warnings():
        # The current settings may be out of the search range.
        warnings.filterwarnings("ignore", message="Fixed parameter .* is out of range", category=UserWarning)
        _suggest(optuna_trial, params)
    return now


def _suggest(optuna_trial: optuna.Trial, params: TuneParams) -> Settings:
    return Settings(
        optuna_trial.suggest_int("rank", *params.rank, log=True),
        _rounded(optuna_trial.suggest_float("learning_rate", *params.learning_rate, log=True), params.learning_rate),
        _rounded(optuna_trial.suggest_float("epochs", *params.epochs), params.epochs),
    )


def _rounded(value: float, span: tuple[float, float]) -> float:
    """Round to three digits within the range, because the value may be written to params.yaml."""
    return min(max(float(f"{value:.3g}"), span[0]), span[1])


def _run_trial(
    optuna_trial: optuna.Trial, number: int, settings: Settings, left: float, train_trial: TrainTrial
) -> Trial:
    used, validations = 0.0, 0

    def on_progress(progress: Progress, minutes: float) -> None:
        nonlocal used, validations
        used = minutes
        if progress.validation_loss is not None:
            validations += 1
            # By validation number, not by step, to compare runs of different lengths at the same fraction of their steps.
            optuna_trial.report(progress.validation_loss, validations)
        if progress.step == progress.steps:
            return
        if minutes >= left:
            raise TrialPruned("stopped")
        if progress.validation_loss is not None and _hopeless(optuna_trial, progress.validation_loss):
            raise TrialPruned("pruned")

    try:
        loss = train_trial(number, settings, on_progress)
    except TrialPruned as end:
        return Trial(number, settings, end.state, None, used)
    if not math.isfinite(loss):
        return Trial(number, settings, "pruned", None, used)
    return Trial(number, settings, "finished", loss, used)


def _hopeless(optuna_trial: optuna.Trial, loss: float) -> bool:
    return not math.isfinite(loss) or optuna_trial.should_prune()

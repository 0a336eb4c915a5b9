"""Calibrate the settings of `watch` on a stable period of a history, for a rate of false alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.errors import PerpetuneError
from perpetune.params import Params
from perpetune.replay.resample import (
    Delay,
    Numbers,
    alarm_rate,
    block_bootstrap,
    first_alarms,
    median_delay,
    with_drop,
)
from perpetune.statistics.estimate import Estimate, estimate_mean, wilson
from perpetune.statistics.sequential.change_point import evidence_paths

HISTORIES = 200
MAX_LABELS = 20_000  # of a simulated history
EVERY = 5  # labels between two checks after a drop
DROPS = (0.03, 0.05, 0.10)
DOUBLED = 3  # times that the run length is doubled at most, if neighbouring labels are alike
MAX_CHECKS = 4000  # of a simulated history
MIN_LABELS = 200
MIN_WINDOW, MAX_WINDOW = 50, 1000


@dataclass(frozen=True)
class Rate:
    """False alarms a year with an interval, measured on `histories` resampled histories of `labels` labels each."""

    value: float
    low: float
    high: float
    histories: int
    labels: int


@dataclass(frozen=True)
class Calibration:
    """The suggested settings, their measured false alarms and delays, and warnings about their reliability."""

    labels: int
    labels_per_day: float
    score: Estimate
    holdout: int
    run_length: float
    window: int
    false_alarms: Rate
    delays: tuple[Delay, ...]
    warnings: tuple[str, ...]

    @property
    def settings(self) -> dict[str, int | float]:
        """The suggested values by setting of params.yaml."""
        return {"watch.run_length": self.run_length, "watch.window": self.window}


def calibrate(
    scores: Sequence[float],
    days: float,
    holdout: int,
    budget: float,
    params: Params,
    log: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Suggest settings for at most `budget` false alarms a year.

    `scores` (0 to 1) are those of a stable period of `days`, in the order in which their labels became known; `holdout` is
    the number of rows of the champion's reference. The run length is the number of labels a year divided by the budget.
    It is doubled, up to three times, until the upper bound of the rate in resampled histories is within the budget:
    neighbouring labels that are alike raise more false alarms. The window is the median number of labels until a drop of
    10 points is found. Raises PerpetuneError if the period is too short.
    """
    if len(scores) < 20 or days <= 0:
        raise PerpetuneError(
            f"{len(scores)} labels in {days:.1f} days are too few for a calibration", do="choose a longer period"
        )
    found = np.asarray(scores, dtype=float)
    labels_per_day = len(found) / days
    run_length = round(365 * labels_per_day / budget)
    if run_length < 100:
        raise PerpetuneError(
            f"{365 * labels_per_day:.0f} labels a year with {budget:g} false alarms a year are {run_length} labels per false "
            "alarm: too few to detect decay",
            do="allow fewer false alarms, or collect more labels",
        )
    run_length, rate = _run_length(found, holdout, run_length, budget, labels_per_day, params, log)
    delays = tuple(_delays(found, holdout, run_length, params, log))
    ten = delays[-1].labels
    window = round(np.clip(ten.value if ten else MAX_WINDOW, max(MIN_WINDOW, params.watch.min_rows), MAX_WINDOW))
    return Calibration(
        labels=len(found),
        labels_per_day=labels_per_day,
        score=_score(found, params),
        holdout=holdout,
        run_length=run_length,
        window=window,
        false_alarms=rate,
        delays=delays,
        warnings=tuple(_warnings(found, holdout, run_length, rate, budget, params)),
    )


def _run_length(
    scores: Numbers,
    holdout: int,
    start: int,
    budget: float,
    labels_per_day: float,
    params: Params,
    log: Callable[[str], None],
) -> tuple[int, Rate]:
    """The shortest run length, `start` times a power of 2, within the budget, and its measured rate."""
    rng = np.random.default_rng(params.evaluate.seed)
    length = min(MAX_LABELS, max(1000, round(365 * labels_per_day)))
    stable, holdouts = _stable(scores, holdout, length, rng)
    log(f"{HISTORIES} stable histories of {length:,} labels")
    every = _every(labels_per_day, length)
    evidence = evidence_paths(stable, holdouts, params.watch.margin, every)
    for doubled in range(DOUBLED + 1):
        run_length = start * 2**doubled
        first = first_alarms(evidence, run_length, every)
        rate, low, high = (
            365 * labels_per_day * each for each in alarm_rate(first, length, params.evaluate.confidence)
        )
        if high <= budget:
            break
    return run_length, Rate(rate, low, high, HISTORIES, length)


def _stable(scores: Numbers, holdout: int, length: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    return block_bootstrap(scores, HISTORIES, length, rng), rng.choice(scores, (HISTORIES, holdout))


def _every(labels_per_day: float, length: int) -> int:
    """Labels between two hourly checks, or more if the histories are long."""
    return max(1, round(labels_per_day / 24), length // MAX_CHECKS)


def _delays(
    scores: Numbers, holdout: int, run_length: int, params: Params, log: Callable[[str], None]
) -> Iterator[Delay]:
    """The delays until drops are found, after as many stable labels as the reference has rows."""
    within = 5000
    for drop in DROPS:
        log(f"{HISTORIES} histories with a drop of {100 * drop:g} points")
        rng = np.random.default_rng(params.evaluate.seed)
        stable, holdouts = _stable(scores, holdout, holdout + within, rng)
        fallen = np.concatenate([stable[:, :holdout], with_drop(stable[:, holdout:], drop, rng)], axis=1)
        evidence = evidence_paths(fallen, holdouts, params.watch.margin, EVERY)[:, holdout // EVERY :]
        first = first_alarms(evidence, run_length, EVERY)
        found = wilson(int(np.isfinite(first).sum()), HISTORIES, params.evaluate.confidence)
        labels = median_delay(first, params.evaluate.confidence, params.evaluate.bootstrap_samples, rng)
        yield Delay(drop, labels, found, within)


def _warnings(
    scores: Numbers, holdout: int, run_length: int, rate: Rate, budget: float, params: Params
) -> Iterator[str]:
    half = min(holdout, len(scores) // 2)
    evidence = evidence_paths(scores[None, half:], scores[None, :half], params.watch.margin)
    alarm = first_alarms(evidence, run_length, 1)[0]
    if np.isfinite(alarm):
        yield (
            f"The period is not stable: with its first {half} labels as reference, the detector alarms {alarm:.0f} labels "
            "later. Choose an earlier period with --from and --to."
        )
    if len(scores) < MIN_LABELS:
        yield f"The period has only {len(scores)} labels; use at least {MIN_LABELS}."
    if len(scores) < run_length:
        yield (
            f"The period has {len(scores):,} labels and is resampled for events that happen once in {run_length:,}: rare "
            "drops that the period does not contain are not simulated."
        )
    if rate.high > budget:
        yield (
            f"Even with a run length of {run_length:,} the upper bound of the measured rate, {rate.high:.2g} a year, exceeds "
            f"the budget of {budget:g}: neighbouring labels are alike, so give users or sessions (`group`), or a longer period."
        )


def _score(scores: Numbers, params: Params) -> Estimate:
    evaluate = params.evaluate
    return estimate_mean(
        scores.tolist(), confidence=evaluate.confidence, samples=evaluate.bootstrap_samples, seed=evaluate.seed
    )

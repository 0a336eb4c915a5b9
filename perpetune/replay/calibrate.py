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
    resampled_thresholds,
    with_drop,
)
from perpetune.statistics.estimate import Estimate, critical_value, estimate_mean, wilson

HISTORIES = 200
MAX_LABELS = 20_000  # of a simulated history
DROPS = (0.03, 0.05, 0.10)
MARGINS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1)
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
    margin: float
    window: int
    false_alarms: Rate
    delays: tuple[Delay, ...]
    warnings: tuple[str, ...]

    @property
    def settings(self) -> dict[str, int | float]:
        """The suggested values by setting of params.yaml."""
        return {"watch.run_length": self.run_length, "watch.margin": self.margin, "watch.window": self.window}


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
    The margin is the smallest one for which the upper bound of the measured rate is within the budget. The window is the
    median number of labels until a drop of 10 points is found. Raises PerpetuneError if the period is too short.
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
    length = min(MAX_LABELS, max(1000, round(365 * labels_per_day)))
    margin, rate = _margin(found, holdout, run_length, length, budget, 365 * labels_per_day, params, log)
    delays = tuple(_delays(found, holdout, margin, run_length, params, log))
    ten = delays[-1].labels
    window = round(np.clip(ten.value if ten else MAX_WINDOW, max(MIN_WINDOW, params.watch.min_rows), MAX_WINDOW))
    return Calibration(
        labels=len(found),
        labels_per_day=labels_per_day,
        score=_score(found, params),
        holdout=holdout,
        run_length=run_length,
        margin=margin,
        window=window,
        false_alarms=rate,
        delays=delays,
        warnings=tuple(_warnings(found, holdout, margin, run_length, rate, budget, params)),
    )


def thresholds(holdouts: Numbers, margin: float, confidence: float) -> Numbers:
    """The decay threshold of each holdout, shape (histories, rows): Wilson's one-sided bound less the margin.

    Wilson's bound is conservative for graded scores, because scores of 0 and 1 have the largest variance.
    """
    n, mean, z = holdouts.shape[1], holdouts.mean(axis=1), critical_value(2 * confidence - 1)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z * np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return np.asarray(np.clip(centre - half_width - margin, 0, 1))


def _margin(
    scores: Numbers,
    holdout: int,
    run_length: int,
    length: int,
    budget: float,
    labels_per_year: float,
    params: Params,
    log: Callable[[str], None],
) -> tuple[float, Rate]:
    """The smallest margin within the budget and its measured rate; the largest margin if none is."""
    rng = np.random.default_rng(params.evaluate.seed)
    stable = block_bootstrap(scores, HISTORIES, length, rng)
    holdouts = rng.choice(scores, (HISTORIES, holdout))
    for margin in MARGINS:
        log(f"{HISTORIES} stable histories of {length:,} labels, margin {margin:g}")
        bounds = thresholds(holdouts, margin, params.watch.reference_confidence)
        rate, low, high = (
            each * labels_per_year
            for each in alarm_rate(first_alarms(stable, bounds, run_length), length, params.evaluate.confidence)
        )
        if high <= budget:
            break
    return margin, Rate(rate, low, high, HISTORIES, length)


def _delays(
    scores: Numbers, holdout: int, margin: float, run_length: int, params: Params, log: Callable[[str], None]
) -> Iterator[Delay]:
    """The delays until drops are found. The drop starts at the first label: earlier evidence would shorten the delay."""
    within = 5000
    for drop in DROPS:
        log(f"{HISTORIES} histories with a drop of {100 * drop:g} points")
        rng = np.random.default_rng(params.evaluate.seed)
        fallen = with_drop(block_bootstrap(scores, HISTORIES, within, rng), drop, rng)
        bounds = resampled_thresholds(
            scores,
            HISTORIES,
            holdout,
            lambda rows: thresholds(rows, margin, params.watch.reference_confidence),
            rng,
        )
        first = first_alarms(fallen, bounds, run_length)
        found = wilson(int(np.isfinite(first).sum()), HISTORIES, params.evaluate.confidence)
        labels = median_delay(first, params.evaluate.confidence, params.evaluate.bootstrap_samples, rng)
        yield Delay(drop, labels, found, within)


def _warnings(
    scores: Numbers, holdout: int, margin: float, run_length: int, rate: Rate, budget: float, params: Params
) -> Iterator[str]:
    confidence = params.watch.reference_confidence
    half = min(holdout, len(scores) // 2)
    bound = thresholds(scores[None, :half], margin, confidence)
    alarm = first_alarms(scores[None, half:], bound, run_length)[0]
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
            f"Even with a margin of {100 * margin:g} points the upper bound of the measured rate, {rate.high:.2g} a year, "
            f"exceeds the budget of {budget:g}: use a larger holdout or a longer period."
        )


def _score(scores: Numbers, params: Params) -> Estimate:
    evaluate = params.evaluate
    return estimate_mean(
        scores.tolist(), confidence=evaluate.confidence, samples=evaluate.bootstrap_samples, seed=evaluate.seed
    )

"""Thresholds from a quiet stretch of a team's own history, for the false alarms that it will bear."""

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
    bounds_of,
    dropped,
    first_alarms,
    median_delay,
    resampled,
)
from perpetune.statistics.estimate import Estimate, critical_value, estimate_mean, wilson

HISTORIES = 200
MOST_LABELS = 20_000  # of a simulated history
DROPS = (0.03, 0.05, 0.10)
MARGINS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1)
LEAST_LABELS = 200
LEAST_WINDOW, MOST_WINDOW = 50, 1000


@dataclass(frozen=True)
class Rate:
    """False alarms a year, measured on `histories` resampled ones with `labels` labels each."""

    value: float
    low: float
    high: float
    histories: int
    labels: int


@dataclass(frozen=True)
class Calibration:
    """What is suggested, and what it is worth. `warnings` say why it may not be trusted."""

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
        """The fields of params.yaml and the values suggested for them."""
        return {"watch.run_length": self.run_length, "watch.margin": self.margin, "watch.window": self.window}


def calibrate(
    scores: Sequence[float],
    days: float,
    holdout: int,
    budget: float,
    params: Params,
    tell: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Suggest settings for at most `budget` false alarms a year.

    `scores` (0 to 1) are those of a quiet stretch of `days`, in the order in which their labels became known;
    `holdout` is how many rows the champion's bound rests on. The run length is the labels of a year over the budget.
    The margin is the smallest with which resampled years keep within the budget, by the upper end of the measured
    rate: so that a champion whose holdout flattered it is not held to that. The window holds the requests within
    which a drop of 10 points is found. Raises PerpetuneError where the stretch cannot say anything.
    """
    if len(scores) < 20 or days <= 0:
        raise PerpetuneError(
            f"{len(scores)} labels in {days:.1f} days are too few to calibrate with", do="name a longer stretch"
        )
    found = np.asarray(scores, dtype=float)
    a_day = len(found) / days
    run_length = round(365 * a_day / budget)
    if run_length < 100:
        raise PerpetuneError(
            f"{365 * a_day:.0f} labels a year with {budget:g} false alarms a year leave {run_length} labels to each: "
            "too few to find anything in",
            do="ask for fewer false alarms, or collect more labels",
        )
    length = min(MOST_LABELS, max(1000, round(365 * a_day)))
    margin, rate = _margin(found, holdout, run_length, length, budget, 365 * a_day, params, tell)
    delays = tuple(_delays(found, holdout, margin, run_length, params, tell))
    ten = delays[-1].labels
    window = round(np.clip(ten.value if ten else MOST_WINDOW, max(LEAST_WINDOW, params.watch.min_rows), MOST_WINDOW))
    return Calibration(
        labels=len(found),
        labels_per_day=a_day,
        score=_score(found, params),
        holdout=holdout,
        run_length=run_length,
        margin=margin,
        window=window,
        false_alarms=rate,
        delays=delays,
        warnings=tuple(_warnings(found, holdout, margin, run_length, rate, budget, params)),
    )


def lower_bounds(holdouts: Numbers, margin: float, confidence: float) -> Numbers:
    """The bound that each of the holdouts (histories x rows) would set: Wilson's one-sided limit, less the margin.

    For graded scores, too, Wilson's limit: it is the wider one, since no scores spread more than right and wrong do.
    """
    n, share, z = holdouts.shape[1], holdouts.mean(axis=1), critical_value(2 * confidence - 1)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return np.asarray(np.clip(centre - reach - margin, 0, 1))


def _margin(
    scores: Numbers,
    holdout: int,
    run_length: int,
    length: int,
    budget: float,
    a_year: float,
    params: Params,
    tell: Callable[[str], None],
) -> tuple[float, Rate]:
    """The smallest margin within the budget, with the rate measured; the largest where none is."""
    rng = np.random.default_rng(params.evaluate.seed)
    stable = resampled(scores, HISTORIES, length, rng)
    holdouts = rng.choice(scores, (HISTORIES, holdout))
    for margin in MARGINS:
        tell(f"{HISTORIES} quiet histories of {length:,} labels, margin {margin:g}")
        bounds = lower_bounds(holdouts, margin, params.watch.reference_confidence)
        rate, low, high = (
            each * a_year
            for each in alarm_rate(first_alarms(stable, bounds, run_length), length, params.evaluate.confidence)
        )
        if high <= budget:
            break
    return margin, Rate(rate, low, high, HISTORIES, length)


def _delays(
    scores: Numbers, holdout: int, margin: float, run_length: int, params: Params, tell: Callable[[str], None]
) -> Iterator[Delay]:
    """The drop comes at the first label: evidence that was gathered before it could only make the alarm sooner."""
    within = 5000
    for drop in DROPS:
        tell(f"{HISTORIES} histories with a drop of {100 * drop:g} points")
        rng = np.random.default_rng(params.evaluate.seed)
        fallen = dropped(resampled(scores, HISTORIES, within, rng), drop, rng)
        bounds = bounds_of(
            scores,
            HISTORIES,
            holdout,
            lambda rows: lower_bounds(rows, margin, params.watch.reference_confidence),
            rng,
        )
        first = first_alarms(fallen, bounds, run_length)
        rang = wilson(int(np.isfinite(first).sum()), HISTORIES, params.evaluate.confidence)
        labels = median_delay(first, params.evaluate.confidence, params.evaluate.bootstrap_samples, rng)
        yield Delay(drop, labels, rang, within)


def _warnings(
    scores: Numbers, holdout: int, margin: float, run_length: int, rate: Rate, budget: float, params: Params
) -> Iterator[str]:
    confidence = params.watch.reference_confidence
    half = min(holdout, len(scores) // 2)
    bound = lower_bounds(scores[None, :half], margin, confidence)
    rang = first_alarms(scores[None, half:], bound, run_length)[0]
    if np.isfinite(rang):
        yield (
            f"The stretch is not quiet: held to its first {half} labels, the detector rings {rang:.0f} labels later. "
            "Name a stretch before that, with --from and --to."
        )
    if len(scores) < LEAST_LABELS:
        yield f"The stretch has {len(scores)} labels; fewer than {LEAST_LABELS} say little about what is usual."
    if len(scores) < run_length:
        yield (
            f"The stretch has {len(scores):,} labels and is resampled to look for what happens once in "
            f"{run_length:,}: bad spells rarer than once in the stretch are not in it."
        )
    if rate.high > budget:
        yield (
            f"Even with a margin of {100 * margin:g} points the upper end of the measured rate, {rate.high:.2g} a year, "
            f"is beyond the budget of {budget:g}: bring a larger holdout, or a longer stretch."
        )


def _score(scores: Numbers, params: Params) -> Estimate:
    evaluate = params.evaluate
    return estimate_mean(
        scores.tolist(), confidence=evaluate.confidence, samples=evaluate.bootstrap_samples, seed=evaluate.seed
    )

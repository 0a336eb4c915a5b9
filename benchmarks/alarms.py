"""Decay detectors on simulated streams of right and wrong answers: perpetune, Evidently's default, a threshold, ADWIN."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from promotions import ratio_with_interval
from scipy.stats import chi2, norm

from perpetune.monitoring.decay import decay_threshold
from perpetune.params import WatchParams
from perpetune.statistics.e_detector import evidence_paths

Numbers = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
WINDOW = 50  # labels between two checks
STABLE = 1000  # labels before the change
BLOCK = 100  # histories at once, to limit memory
EVIDENTLY = 0.05  # its default threshold of the p-value
OURS, EVIDENTLYS, FIXED, ADWINS = "perpetune", "Evidently default", "fixed threshold", "ADWIN"

Source = Callable[[np.random.Generator, tuple[int, int]], Numbers]

# From histories of scores (histories x labels) and their references (histories x rows): whether each check alarms.
Method = Callable[[Numbers, Numbers], Bools]


@dataclass(frozen=True)
class RunLength:
    """Labels to the first false alarm; `alarmed` of `histories` had one within `labels` labels.

    A censored exponential estimate with its 95% interval; without an alarm only the lower end is known. `seen` is the total
    of labels up to the first alarms.
    """

    method: str
    stream: str
    histories: int
    labels: int
    alarmed: int
    seen: int
    per_thousand_windows: float | None
    mean: float | None
    low: float
    high: float | None


@dataclass(frozen=True)
class Delay:
    """Labels from a drop to the first alarm after it, censored at `labels`."""

    method: str
    drop: str
    histories: int
    labels: int
    found: tuple[float, float, float]
    median: tuple[float, float, float]
    mean: tuple[float, float, float]


def answers(accuracy: float) -> Source:
    return lambda rng, shape: (rng.random(shape) < accuracy).astype(np.float64)


def resampled(scores: Sequence[float]) -> Source:
    """Real scores, drawn with replacement."""
    real = np.asarray(scores)
    return lambda rng, shape: real[rng.integers(0, len(real), shape)]


def ours(watch: WatchParams) -> Method:
    """The e-detector with the product's decay threshold; all references have the same score."""

    def alarms(scores: Numbers, references: Numbers) -> Bools:
        bound = decay_threshold(references[0].tolist(), watch)
        if bound is None:
            raise ValueError("a reference needs rows")
        return np.asarray(evidence_paths(scores, bound)[:, WINDOW - 1 :: WINDOW] >= watch.run_length)

    return alarms


def evidently(scores: Numbers, references: Numbers) -> Bools:
    """Evidently 0.7's default test for a binary column and up to 1,000 reference rows: the two-sided z test."""
    return evidently_p(scores, references) < EVIDENTLY


def evidently_p(scores: Numbers, references: Numbers) -> Numbers:
    now, then, rows = _windows(scores), references.mean(axis=1, keepdims=True), references.shape[1]
    pooled = (then * rows + now * WINDOW) / (rows + WINDOW)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / WINDOW))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(spread > 0, 2 * norm.sf(np.abs(then - now) / spread), 1.0))


def fixed(margin: float) -> Method:
    """Alarm if the window's mean is below the reference's by more than the margin."""
    return lambda scores, references: _windows(scores) < references.mean(axis=1, keepdims=True) - margin


def adwin(scores: Numbers, references: Numbers) -> Bools:
    """river's ADWIN with its defaults, with the reference as first input; alarms on improvements do not count."""
    from river.drift import ADWIN

    found = np.zeros((len(scores), scores.shape[1] // WINDOW), dtype=bool)
    for history, (stream, reference) in enumerate(zip(scores, references, strict=True)):
        detector = ADWIN()
        for score in reference.tolist():
            detector.update(score)
        for position, score in enumerate(stream.tolist()):
            before = detector.estimation
            detector.update(score)
            if detector.drift_detected and detector.estimation < before:
                found[history, position // WINDOW] = True
    return found


def _windows(scores: Numbers) -> Numbers:
    return np.asarray(scores.reshape(len(scores), -1, WINDOW).mean(axis=2))


def run_length_at_bound(watch: WatchParams, bound: float, histories: int, labels: int, seed: int) -> RunLength:
    """The worst stable stream, with the mean at the threshold, checked after every label."""
    rng = np.random.default_rng(seed)
    firsts: list[int | None] = []
    for start in range(0, histories, BLOCK):
        scores = answers(bound)(rng, (min(BLOCK, histories - start), labels))
        firsts += _firsts(evidence_paths(scores, bound) >= watch.run_length, 1)
    return _run_length(OURS, f"mean at the threshold of {bound:g}, a check at every label", firsts, labels, None)


def run_length(
    name: str, method: Method, stable: Source, rows: int, histories: int, labels: int, seed: int, stream: str
) -> RunLength:
    """Stable histories, checked once a window; the reference is `rows` answers from the same source."""
    rng = np.random.default_rng(seed)
    firsts: list[int | None] = []
    rung = 0
    for references in _alike(stable(rng, (histories, rows))):
        alarms = method(stable(rng, (len(references), labels)), references)
        rung += int(alarms.sum())
        firsts += _firsts(alarms, WINDOW)
    return _run_length(name, stream, firsts, labels, 1000 * rung * WINDOW / (histories * labels))


def _firsts(alarms: Bools, labels_each: int) -> list[int | None]:
    return [(int(row.argmax()) + 1) * labels_each if row.any() else None for row in alarms]


def _run_length(
    name: str, stream: str, firsts: Sequence[int | None], labels: int, per_thousand: float | None
) -> RunLength:
    seen = sum(labels if first is None else first for first in firsts)
    alarmed = sum(first is not None for first in firsts)
    return RunLength(
        method=name,
        stream=stream,
        histories=len(firsts),
        labels=labels,
        alarmed=alarmed,
        seen=seen,
        per_thousand_windows=per_thousand,
        mean=seen / alarmed if alarmed else None,
        low=float(2 * seen / chi2.ppf(0.975, 2 * alarmed + 2)),
        high=float(2 * seen / chi2.ppf(0.025, 2 * alarmed)) if alarmed else None,
    )


def delay(
    name: str,
    method: Method,
    drop: str,
    sources: tuple[Source, Source],
    rows: int,
    histories: int,
    labels: int,
    seed: int,
) -> Delay:
    """`STABLE` labels come from the first source, as the reference does, then `labels` from the second.

    Alarms before the change are ignored.
    """
    rng = np.random.default_rng(seed)
    before, after = sources
    delays: list[int] = []
    for references in _alike(before(rng, (histories, rows))):
        some = len(references)
        scores = np.concatenate([before(rng, (some, STABLE)), after(rng, (some, labels))], axis=1)
        alarms = method(scores, references)[:, STABLE // WINDOW :]
        delays += [first or 0 for first in _firsts(alarms, WINDOW)]
    took = np.array([each or labels for each in delays], dtype=float)
    again = took[rng.integers(0, len(took), (1000, len(took)))]
    return Delay(
        name,
        drop,
        len(took),
        labels,
        ratio_with_interval(sum(each > 0 for each in delays), len(delays)),
        _interval(float(np.median(took)), np.median(again, axis=1)),
        _interval(float(took.mean()), again.mean(axis=1)),
    )


def _interval(value: float, again: Numbers) -> tuple[float, float, float]:
    low, high = np.quantile(again, [0.025, 0.975])
    return value, float(low), float(high)


def _alike(references: Numbers) -> Iterator[Numbers]:
    """Group references with the same score, because they have the same threshold and are computed together."""
    right = references.sum(axis=1)
    for each in np.unique(right):
        same = references[right == each]
        for start in range(0, len(same), BLOCK):
            yield same[start : start + BLOCK]

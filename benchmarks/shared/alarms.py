"""Detectors of a falling score as statistics over time, so that they can be compared at equal false-alarm rates.

Each takes simulated histories of scores (histories x labels) and their references (histories x rows), and gives its
statistic at each check, (histories x checks). A detector alarms when its statistic reaches a threshold. The thresholds of
the others are set so that they alarm in as many stable histories as perpetune does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from perpetune.statistics.sequential.change_point import evidence_paths

Numbers = npt.NDArray[np.float64]

EVERY = 10  # labels between two checks
WINDOW = 50  # labels of a window of Evidently's
CHUNK = 100  # labels of a chunk as NannyML makes them
TOLERANCE = 0.005  # of Page-Hinkley, river's default
OURS, CUSUM, ADWIN, PAGE_HINKLEY, DDM, CHUNKS, EVIDENTLY = (
    "perpetune",
    "CUSUM that knows both means",
    "ADWIN",
    "Page-Hinkley",
    "DDM",
    "NannyML's chunks",
    "Evidently's z test",
)
DELTAS = (0.2, 0.05, 0.01, 2e-3, 5e-4, 1e-4, 1e-5, 1e-6)  # of ADWIN

Method = Callable[[Numbers, Numbers], Numbers]


def ours(margin: float) -> Method:
    return lambda scores, references: evidence_paths(scores, references, margin, EVERY)


def cusum(before: float, after: float) -> Method:
    """Page's CUSUM of right and wrong answers: what no detector can beat by much (Lorden 1971), if both means are known."""
    right, wrong = np.log(after / before), np.log((1 - after) / (1 - before))

    def paths(scores: Numbers, references: Numbers) -> Numbers:
        steps = (wrong + (right - wrong) * scores).cumsum(axis=1)
        return _checks(steps - np.minimum.accumulate(np.minimum(steps, 0), axis=1))

    return paths


def page_hinkley(scores: Numbers, references: Numbers) -> Numbers:
    """river's, for an increase of errors; the reference comes first, and its alarms do not count."""
    wrong = 1 - np.concatenate([references, scores], axis=1)
    means = wrong.cumsum(axis=1) / np.arange(1, wrong.shape[1] + 1)
    sums = (wrong - means - TOLERANCE).cumsum(axis=1)
    return _checks((sums - np.minimum.accumulate(sums, axis=1))[:, references.shape[1] :])


def ddm(scores: Numbers, references: Numbers) -> Numbers:
    """Gama et al. 2004: standard deviations of the error rate above its lowest; the reference comes first."""
    wrong = 1 - np.concatenate([references, scores], axis=1)
    count = np.arange(1, wrong.shape[1] + 1)
    rate = wrong.cumsum(axis=1) / count
    spread = np.sqrt(rate * (1 - rate) / count)
    level = np.where((count >= 30) & (rate > 0), rate + spread, np.inf)
    best = np.minimum.accumulate(level, axis=1)
    first = np.maximum.accumulate(np.where(level <= best, np.arange(wrong.shape[1]), 0), axis=1)
    lowest, at_lowest = (np.take_along_axis(each, first, axis=1) for each in (rate, spread))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(np.isfinite(level) & (at_lowest > 0), (rate + spread - lowest) / at_lowest, 0.0)
    return _checks(found[:, references.shape[1] :])


def chunks(scores: Numbers, references: Numbers) -> Numbers:
    """Standard errors of a chunk below the reference, at the end of each chunk."""
    return _at_ends(_standard_errors(scores, references, CHUNK, 0.0), CHUNK)


def evidently(scores: Numbers, references: Numbers) -> Numbers:
    """Evidently 0.7's default for such a column and up to 1,000 reference rows, the z test of two proportions."""
    return _at_ends(_standard_errors(scores, references, WINDOW, 1.0), WINDOW)


def adwin(scores: Numbers, references: Numbers, delta: float) -> Numbers:
    """1 at each check after river's ADWIN has found a drop, else 0; the reference comes first."""
    from river.drift import ADWIN as Adwin

    found = np.zeros(scores.shape)
    for history, (stream, reference) in enumerate(zip(scores, references, strict=True)):
        detector = Adwin(delta=delta)
        for score in reference.tolist():
            detector.update(score)
        for position, score in enumerate(stream.tolist()):
            before = detector.estimation
            detector.update(score)
            if detector.drift_detected and detector.estimation < before:
                found[history, position] = 1.0
    block = found.reshape(len(scores), -1, EVERY)
    return np.asarray(block.max(axis=2))


def evidently_p(scores: Numbers, references: Numbers) -> Numbers:
    """The two-sided p-value of each window, to compare with Evidently's."""
    return np.asarray(2 * norm.sf(np.abs(_standard_errors(scores, references, WINDOW, 1.0))))


def _standard_errors(scores: Numbers, references: Numbers, size: int, uncertain: float) -> Numbers:
    """How far each window is below the reference; `uncertain` 1 counts the reference's own uncertainty, 0 does not."""
    now = scores.reshape(len(scores), -1, size).mean(axis=2)
    then, rows = references.mean(axis=1, keepdims=True), references.shape[1]
    pooled = (then * rows + now * size) / (rows + size) if uncertain else then
    spread = np.sqrt(pooled * (1 - pooled) * (uncertain / rows + 1 / size))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(spread > 0, (then - now) / spread, 0.0))


def _at_ends(statistic: Numbers, size: int) -> Numbers:
    """As one value for each check: that of the window that ended last."""
    repeated = np.repeat(statistic, size // EVERY, axis=1)
    none_yet = np.full((len(statistic), size // EVERY - 1), -np.inf)
    return np.concatenate([none_yet, repeated], axis=1)[:, : repeated.shape[1]]


def _checks(paths: Numbers) -> Numbers:
    """The highest value since the last check."""
    return np.asarray(paths.reshape(len(paths), -1, EVERY).max(axis=2))

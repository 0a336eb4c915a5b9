"""E-detector: sequential detection of a mean score that drops below a bound at an unknown time.

Shin, Ramdas & Rinaldo, E-detectors: a nonparametric framework for sequential change detection, New England Journal of
Statistics in Data Science 2 (2024), section 2. Before every score a new bettor enters with one unit of capital, and
all of them bet that the mean is below the bound. While it is not, the expected total capital after n scores is at most
n. An alarm at a total of `run_length` therefore has an average run length to false alarm of at least `run_length`
scores, for any distribution of scores in [0, 1] and any schedule of checks (Theorem 2.4, the Shiryaev-Roberts form).

Each bettor spreads its unit over stakes tuned for drops of different sizes. The richest bettor entered when the drop
most likely began; its capital is Page's CUSUM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

DROPS = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3)  # below the bound, one stake for each
MAX_CAPITAL = 1e100  # capital is clipped here: far beyond every alarm, within the range of a float


@dataclass(frozen=True)
class Detector:
    """The state after `seen` scores; it can be stored and continued.

    `held` is the total capital against `bound` for each stake, `most` that of the richest single bettor, who entered
    `since` scores ago.
    """

    bound: float
    held: tuple[float, ...]
    most: tuple[float, ...]
    since: tuple[int, ...]
    seen: int = 0

    @property
    def evidence(self) -> float:
        """The mean capital over the stakes. An alarm is due when it reaches the run length."""
        return float(np.mean(self.held))

    @property
    def since_fall(self) -> int:
        """The number of scores since the drop most likely began, if there was one."""
        return self.since[int(np.argmax(self.most))]


def new_detector(bound: float) -> Detector:
    """The detector of a mean below `bound` before any score. Raises ValueError if `bound` is outside [0, 1]."""
    if not 0 <= bound <= 1:
        raise ValueError(f"the bound on scores must be within 0 and 1, got {bound}")
    nothing = (0.0,) * len(DROPS)
    return Detector(bound, nothing, nothing, (0,) * len(DROPS))


def update_detector(detector: Detector, scores: Sequence[float] | Numbers) -> Detector:
    """The detector after more scores, in order of arrival. Raises ValueError if a score is outside [0, 1]."""
    held, most, since = (np.array(each) for each in (detector.held, detector.most, detector.since))
    for factors in _bets(_validated(scores), detector.bound):
        held = _after(held, factors)
        since = np.where(most >= 1, since, 0) + 1  # a bettor with less than one unit is poorer than the newest one
        most = np.minimum(np.maximum(most, 1) * factors, MAX_CAPITAL)
    return Detector(
        detector.bound, tuple(held.tolist()), tuple(most.tolist()), tuple(since.tolist()), detector.seen + len(scores)
    )


def evidence_paths(scores: Numbers, bound: float) -> Numbers:
    """The evidence after each score for simulated histories, (histories, scores)."""
    paths = np.empty(scores.shape)
    held = np.zeros((scores.shape[0], len(DROPS)))
    for position, column in enumerate(_validated(scores).T):
        held = _after(held, _bets(column, bound))
        paths[:, position] = held.mean(axis=1)
    return paths


def _after(held: Numbers, factors: Numbers) -> Numbers:
    return np.asarray(np.minimum((held + 1) * factors, MAX_CAPITAL))


def _bets(scores: Numbers, bound: float) -> Numbers:
    """The factor by which capital grows at each score, (scores, stakes)."""
    return np.asarray(1 + _stakes(bound) * (bound - scores[:, None]))


def _validated(scores: Sequence[float] | Numbers) -> Numbers:
    values = np.asarray(scores, dtype=float)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"scores must be within 0 and 1, got {values.min()} to {values.max()}")
    return values


def _stakes(bound: float) -> Numbers:
    """The Kelly stake for each drop: the one under which scores of 0 and 1 with that mean grow capital fastest."""
    falls = np.minimum(np.asarray(DROPS), bound)
    spread = bound * (1 - bound)
    most = 1 / (1 - bound) if bound < 1 else np.inf
    return np.asarray(np.minimum(falls / spread, most) if spread > 0 else np.zeros(len(DROPS)))

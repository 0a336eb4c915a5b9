"""Whether a stream of scores has fallen below a bound since some unknown moment, looked at as often as one likes.

An e-detector (Shin, Ramdas & Rinaldo, E-detectors: a nonparametric framework for sequential change detection, New
England Journal of Statistics in Data Science 2 (2024), section 2): before every score another bettor comes in with one
unit, and all bet that the mean is below the bound. While it is not, what they hold together grows by no more than the
one unit brought in for each score, so that its expectation after n scores is at most n. Ringing at `run_length` then
means that at least so many scores come before a false alarm on average, whatever the scores' distribution in [0, 1],
and however often and whenever it is looked at. (Theorem 2.4 there; the Shiryaev-Roberts form.)

Each bettor spreads the unit over stakes that would be best for falls of different sizes, so that small and large ones
are both found. The richest of them all came in when the fall most likely began: what that one holds is Page's CUSUM, the
detector's other form there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

DROPS = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3)  # shares of 1 below the bound that the stakes are made for
MAX_CAPITAL = 1e100  # what is held is cut off here: long past every alarm, short of what a float holds


@dataclass(frozen=True)
class Detector:
    """What is held against `bound` after `seen` scores, for each of the stakes; it can be stored and gone on with.

    `most` is what the richest single bettor holds with each stake, who came in `since` scores ago.
    """

    bound: float
    held: tuple[float, ...]
    most: tuple[float, ...]
    since: tuple[int, ...]
    seen: int = 0

    @property
    def evidence(self) -> float:
        """What is held in all. An alarm is due where this reaches the run length."""
        return float(np.mean(self.held))

    @property
    def since_fall(self) -> int:
        """The scores since the fall most likely began, if there was one."""
        return self.since[int(np.argmax(self.most))]


def new_detector(bound: float) -> Detector:
    """A detector of a mean below `bound`, 0 to 1, that has seen nothing yet. Raises ValueError beyond these."""
    if not 0 <= bound <= 1:
        raise ValueError(f"a bound on scores lies within 0 and 1, and {bound} does not")
    nothing = (0.0,) * len(DROPS)
    return Detector(bound, nothing, nothing, (0,) * len(DROPS))


def update_detector(detector: Detector, scores: Sequence[float] | Numbers) -> Detector:
    """The detector after these scores, in the order in which they became known.

    Raises ValueError where a score is outside [0, 1].
    """
    held, most, since = (np.array(each) for each in (detector.held, detector.most, detector.since))
    for factors in _bets(_checked(scores), detector.bound):
        held = _after(held, factors)
        since = np.where(most >= 1, since, 0) + 1  # who holds less than the one who comes in now is the richest no more
        most = np.minimum(np.maximum(most, 1) * factors, MAX_CAPITAL)
    return Detector(
        detector.bound, tuple(held.tolist()), tuple(most.tolist()), tuple(since.tolist()), detector.seen + len(scores)
    )


def evidence_paths(scores: Numbers, bound: float) -> Numbers:
    """What is held after each score, histories x scores; for simulations."""
    paths = np.empty(scores.shape)
    held = np.zeros((scores.shape[0], len(DROPS)))
    for position, column in enumerate(_checked(scores).T):
        held = _after(held, _bets(column, bound))
        paths[:, position] = held.mean(axis=1)
    return paths


def _after(held: Numbers, factors: Numbers) -> Numbers:
    return np.asarray(np.minimum((held + 1) * factors, MAX_CAPITAL))


def _bets(scores: Numbers, bound: float) -> Numbers:
    """What a unit becomes at each score, scores x stakes."""
    return np.asarray(1 + _stakes(bound) * (bound - scores[:, None]))


def _checked(scores: Sequence[float] | Numbers) -> Numbers:
    found = np.asarray(scores, dtype=float)
    if found.size and not (found.min() >= 0 and found.max() <= 1):
        raise ValueError("scores lie within 0 and 1")
    return found


def _stakes(bound: float) -> Numbers:
    """For each fall, the stake that makes right-or-wrong scores with that mean grow fastest (Kelly)."""
    falls = np.minimum(np.asarray(DROPS), bound)
    spread = bound * (1 - bound)
    most = 1 / (1 - bound) if bound < 1 else np.inf
    return np.asarray(np.minimum(falls / spread, most) if spread > 0 else np.zeros(len(DROPS)))

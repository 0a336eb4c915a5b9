"""Holdouts that decide again and again: small losses in a row, and a year of weekly refreshes.

Answers are simulated for all histories at once; the product's gate decides, with the uses of the rows and the anchor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.params import Params, PromoteParams
from perpetune.policy.promotion.evidence import Anchor, HoldoutUse, PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.gate import should_promote
from perpetune.policy.verdict import Interval

Numbers = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ACCURACY, DISCORDANCE = 0.85, 0.10
WEEKS = 52
NEW_ROWS = 0.05  # of the frozen holdout, each week, if it grows


@dataclass(frozen=True)
class Creep:
    """Accuracy that refreshes lost which each lose `step`: mean and 95th percentile over the histories."""

    rows: int
    refreshes: int
    step: float
    fresh: float
    histories: int
    lost: float
    most_lost: float


@dataclass(frozen=True)
class Year:
    """Promotions in a year of weekly refreshes, and the accuracy that the year changed: means and 95% ranges."""

    name: str
    frozen: int
    recent: int
    spread: float
    histories: int
    promotions: float
    most_promotions: float
    change: float
    least_change: float


def creep(
    rows: int, refreshes: int, step: float, params: Params, *, fresh: float, histories: int, seed: int = 1
) -> Creep:
    """Challengers that are each `step` worse than the champion, and better on recent traffic, week after week.

    The ratio `fresh` of the frozen rows is new each time. The first champion is the anchor.
    """
    rng = np.random.default_rng(seed)
    chances = _chances(rng, (histories, rows))
    anchor = _right(rng, chances)
    fallen, used = np.zeros(histories), np.zeros(rows)
    for _ in range(refreshes):
        ours = _right(rng, _moved(chances, -(fallen + step)))
        use = HoldoutUse(float(used.mean()), rows, int((used == 0).sum()))
        passed = _passed_anchor(anchor, ours, fallen == 0, use, params.promote)
        fallen = np.where(passed, fallen + step, fallen)
        used += 1
        new = rng.random(rows) < fresh
        if new.any():
            chances[:, new] = _chances(rng, (histories, int(new.sum())))
            anchor[:, new], used[new] = _right(rng, chances[:, new]), 0
    return Creep(rows, refreshes, step, fresh, histories, float(fallen.mean()), float(np.quantile(fallen, 0.95)))


def _passed_anchor(anchor: Bools, ours: Bools, is_anchor: Bools, use: HoldoutUse, rules: PromoteParams) -> Bools:
    """The gate's verdicts if all else would promote; the champion may be the anchor itself."""
    change = ours.astype(np.int64) - anchor.astype(np.int64)
    better, worse, rows = (change > 0).sum(axis=1), (change < 0).sum(axis=1), ours.shape[1]
    equal = PairedEvidence(0.0, Interval(-0.01, 0.01), 0.5, rows, 0.1)
    gain = PairedEvidence(0.05, Interval(0.03, 0.07), 1e-6, rows, 0.1)
    found = np.empty(len(ours), dtype=bool)
    for history, (up, down) in enumerate(zip(better.tolist(), worse.tolist(), strict=True)):
        difference = (up - down) / rows
        against = PairedEvidence(difference, Interval(difference, difference), 0.5, rows, (up + down) / rows)
        evidence = PromotionEvidence(
            equal,
            gain,
            "champion",
            anchor=None if is_anchor[history] else Anchor("1", against),
            uses={"frozen": use},
        )
        found[history] = should_promote(evidence, rules).outcome == "promote"
    return found


def year(
    name: str, frozen: int, recent: int, spread: float, params: Params, *, fresh: float, histories: int, seed: int = 2
) -> Year:
    """A challenger each week whose true accuracy is that of the champion and a normal deviate of `spread`.

    The recent holdout is new each week (0 rows: there is none, and the frozen one must show the gain).
    """
    rng, paired = np.random.default_rng(seed), _comparison(params)
    chances = _chances(rng, (histories, frozen))
    level, promoted = np.zeros(histories), np.zeros(histories)
    champion = _right(rng, chances)
    anchor, is_anchor, used = champion.copy(), np.ones(histories, dtype=bool), np.zeros(frozen)
    for _ in range(WEEKS):
        ours_level = level + rng.normal(0.0, spread, histories)
        ours = _right(rng, _moved(chances, ours_level))
        newest = _chances(rng, (histories, recent))
        held = (_right(rng, _moved(newest, level)), _right(rng, _moved(newest, ours_level))) if recent else None
        use = HoldoutUse(float(used.mean()), frozen, int((used == 0).sum()))
        for history in range(histories):
            against = None if is_anchor[history] else Anchor("1", paired(anchor[history], ours[history]))
            evidence = PromotionEvidence(
                paired(champion[history], ours[history]),
                paired(held[0][history], held[1][history]) if held else None,
                "champion",
                anchor=against,
                uses={"frozen": use, **({"recent": HoldoutUse(0.0, recent, recent)} if held else {})},
            )
            if should_promote(evidence, params.promote).outcome != "promote":
                continue
            better = paired(anchor[history], ours[history])
            champion[history], level[history] = ours[history], ours_level[history]
            promoted[history] += 1
            is_anchor[history] = better.difference > 0 and better.p_value < params.promote.alpha
            if is_anchor[history]:
                anchor[history] = ours[history]
        used += 1
        new = rng.random(frozen) < fresh
        if new.any():
            chances[:, new] = _chances(rng, (histories, int(new.sum())))
            champion[:, new] = _right(rng, _moved(chances[:, new], level))
            anchor[:, new] = np.where(is_anchor[:, None], champion[:, new], _right(rng, chances[:, new]))
            used[new] = 0
    return Year(
        name,
        frozen,
        recent,
        spread,
        histories,
        float(promoted.mean()),
        float(np.quantile(promoted, 0.975)),
        float(level.mean()),
        float(np.quantile(level, 0.025)),
    )


def creeps(params: Params, histories: int, told: Callable[[Creep], None]) -> list[Creep]:
    """20 and 52 refreshes on several sizes of the frozen holdout, with and without new rows."""
    found = []
    for refreshes, step in ((20, 0.01), (WEEKS, 0.01), (WEEKS, 0.005)):
        for rows in (100, 200, 500, 1000):
            for fresh in (0.0, NEW_ROWS):
                found.append(creep(rows, refreshes, step, params, fresh=fresh, histories=histories))
                told(found[-1])
    return found


def years(params: Params, histories: int, told: Callable[[Year], None]) -> list[Year]:
    """Equal challengers, and challengers of which half are worse."""
    found = []
    for name, frozen, recent, spread, fresh in (
        ("equal challengers", 500, 500, 0.0, NEW_ROWS),
        ("equal challengers, small holdouts", 200, 200, 0.0, NEW_ROWS),
        ("equal challengers, no recent holdout, the same frozen rows", 500, 0, 0.0, 0.0),
        ("challengers that differ by a point", 500, 500, 0.01, NEW_ROWS),
    ):
        found.append(year(name, frozen, recent, spread, params, fresh=fresh, histories=histories))
        told(found[-1])
    return found


def _comparison(params: Params) -> Callable[[Bools, Bools], PairedEvidence]:
    """The product's comparison of two systems on the same rows; only the numbers count, so that most are known."""

    @lru_cache(maxsize=1 << 18)
    def known(both: int, only_theirs: int, only_ours: int, rows: int) -> PairedEvidence:
        neither = rows - both - only_theirs - only_ours
        theirs = (1.0,) * (both + only_theirs) + (0.0,) * (only_ours + neither)
        ours = (1.0,) * both + (0.0,) * only_theirs + (1.0,) * only_ours + (0.0,) * neither
        return paired_evidence(Slice(theirs, ours), params.evaluate, params.promote)

    def compare(theirs: Bools, ours: Bools) -> PairedEvidence:
        both = int((theirs & ours).sum())
        return known(both, int(theirs.sum()) - both, int(ours.sum()) - both, len(ours))

    return compare


def _chances(rng: np.random.Generator, shape: tuple[int, int]) -> Numbers:
    """Of a right answer, by row: two answers of equal models differ on the ratio `DISCORDANCE` of rows."""
    mixing = DISCORDANCE / (2 * ACCURACY * (1 - ACCURACY))
    size = mixing / (1 - mixing)
    return rng.beta(size * ACCURACY, size * (1 - ACCURACY), shape)


def _moved(chances: Numbers, level: Numbers) -> Numbers:
    """The chances of models whose mean accuracy is `ACCURACY` plus their level."""
    up = np.maximum(level, 0.0)[:, None] / (1 - ACCURACY)
    down = np.minimum(level, 0.0)[:, None] / ACCURACY
    return chances + up * (1 - chances) + down * chances


def _right(rng: np.random.Generator, chances: Numbers) -> Bools:
    return rng.random(chances.shape) < chances


def harmonic(verdicts: int, alpha: float) -> float:
    """The most promotions of equal challengers that so many verdicts on the same rows make: alpha (1 + ln k)."""
    return alpha * (1 + math.log(verdicts))

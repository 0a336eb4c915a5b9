"""Simulated promotions: simulated answers, decided by the product's evidence and gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.params import Params
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.gate import should_promote

Numbers = npt.NDArray[np.float64]
LABELS = (0.5, 0.3, 0.2)  # ratios of three labels
OUTCOMES = ("promote", "collect more labels", "reject")


@dataclass(frozen=True)
class Answers:
    """A holdout: scores of champion and challenger, and each row's label."""

    champion: Numbers
    challenger: Numbers
    labels: npt.NDArray[np.int64]


Claimed = Literal["false promotions", "promoted"]
Draw = Callable[[np.random.Generator, int], Answers]


@dataclass(frozen=True)
class Scenario:
    """A scenario: how answers are drawn, `rows` in each holdout, the claim on it, if any, and whether decay started it."""

    name: str
    frozen: Draw
    recent: Draw | None
    rows: int
    claim: Claimed | None = None
    after_decay: bool = False


@dataclass(frozen=True)
class Verdicts:
    """The result of the simulated promotions; `shares` are ratios by outcome with 95% intervals."""

    scenario: str
    claim: Claimed | None
    rows: int
    simulated: int
    discordance: float
    shares: dict[str, tuple[float, float, float]]


def simulate(scenario: Scenario, simulated: int, params: Params, seed: int) -> Verdicts:
    rng = np.random.default_rng(seed)
    outcomes: list[str] = []
    differs: list[float] = []
    for _ in range(simulated):
        held_out = {"frozen": scenario.frozen(rng, scenario.rows)}
        if scenario.recent:
            held_out["recent"] = scenario.recent(rng, scenario.rows)
        evidence = replace(_evidence(held_out, params), after_decay=scenario.after_decay)
        outcomes.append(should_promote(evidence, params.promote).outcome)
        differs += [float(np.mean(some.champion != some.challenger)) for some in held_out.values()]
    counted = {outcome: outcomes.count(outcome) for outcome in OUTCOMES}
    return Verdicts(
        scenario.name,
        scenario.claim,
        scenario.rows,
        simulated,
        float(np.mean(differs)),
        {outcome: ratio_with_interval(count, simulated) for outcome, count in counted.items()},
    )


def ratio_with_interval(count: int, n: int) -> tuple[float, float, float]:
    """A ratio with Clopper and Pearson's 95% interval."""
    low = float(beta.ppf(0.025, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, n - count)) if count < n else 1.0
    return count / n, low, high


def _evidence(held_out: dict[str, Answers], params: Params) -> PromotionEvidence:
    found = {name: _judged([answers], None, params) for name, answers in held_out.items()}
    everything = list(held_out.values())
    labels, counts = np.unique(np.concatenate([answers.labels for answers in everything]), return_counts=True)
    large = labels[counts >= params.promote.slice_rows]
    slices = {f"label {label}": _judged(everything, label, params) for label in large}
    if len(found) > 1:
        slices |= {"source files": found["frozen"], "source traffic": found["recent"]}
    return PromotionEvidence(found["frozen"], found.get("recent"), "champion", slices)


def _judged(some: Sequence[Answers], label: int | None, params: Params) -> PairedEvidence:
    chosen = [answers.labels == label if label is not None else slice(None) for answers in some]
    theirs = np.concatenate([answers.champion[rows] for answers, rows in zip(some, chosen, strict=True)])
    ours = np.concatenate([answers.challenger[rows] for answers, rows in zip(some, chosen, strict=True)])
    return paired_evidence(Slice(tuple(theirs.tolist()), tuple(ours.tolist())), params.evaluate, params.promote)


def drawn(accuracy: float, discordance: float, gain: float = 0.0, lost: float = 0.0) -> Draw:
    """Each row has a probability of a right answer, and both answers are drawn with it.

    The probabilities have a Beta distribution with mean `accuracy`, such that two answers of equal models differ on the
    ratio `discordance` of rows. The challenger gains `gain` in total (a loss if negative), and loses `lost` on the rarest
    label.
    """
    mixing = discordance / (2 * accuracy * (1 - accuracy))
    size = mixing / (1 - mixing)
    shift = gain / (1 - accuracy) if gain > 0 else gain / accuracy

    def draw(rng: np.random.Generator, rows: int) -> Answers:
        chances = rng.beta(size * accuracy, size * (1 - accuracy), rows)
        labels = rng.choice(len(LABELS), rows, p=LABELS)
        moved = chances + shift * ((1 - chances) if gain > 0 else chances)
        moved = np.where(labels == len(LABELS) - 1, moved * (1 - lost / accuracy), moved)
        return Answers(
            (rng.random(rows) < chances).astype(np.float64), (rng.random(rows) < moved).astype(np.float64), labels
        )

    return draw


def resampled(champion: Sequence[float], challenger: Sequence[float], labels: Sequence[str], *, chances: bool) -> Draw:
    """Real rows drawn with replacement; their scores, or answers drawn with the given probabilities."""
    one, other = np.asarray(champion), np.asarray(challenger)
    known = sorted(set(labels))
    numbers = np.array([known.index(label) for label in labels])

    def draw(rng: np.random.Generator, rows: int) -> Answers:
        picked = rng.integers(0, len(one), rows)
        if not chances:
            return Answers(one[picked], other[picked], numbers[picked])
        first, second = (rng.random(rows) < some[picked] for some in (one, other))
        return Answers(first.astype(np.float64), second.astype(np.float64), numbers[picked])

    return draw

"""What holds of the gate's evidence and verdict for any data: order, grouping and batches do not matter, weights do not bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.loop.disagreements.comparison import Disagreement, TrafficComparison, TrafficSample
from perpetune.loop.disagreements.decide import traffic_evidence
from perpetune.params import load_params
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.gate import should_promote
from perpetune.policy.promotion.traffic_comparison import should_promote_on_traffic
from perpetune.statistics.units import units_of

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
KINDS = ("right or wrong", "graded", "groups", "weights", "costs")
SEEDS = range(12)


def rows_of(kind: str, seed: int, count: int = 120) -> Slice:
    rng = np.random.default_rng(seed)
    theirs, ours = ((rng.random(count) < chance).astype(float) for chance in (0.8, 0.8 + 0.1 * (seed % 3)))
    groups = tuple(str(n) for n in range(count))
    weights = (1.0,) * count
    if kind == "graded":
        theirs, ours = (some * rng.choice([0.4, 0.9, 1.0], count) for some in (theirs, ours))
    if kind == "costs":
        theirs, ours = (np.where(some == 1, 1.0, rng.choice([0.0, 0.98], count)) for some in (theirs, ours))
    if kind == "groups":
        groups = tuple(str(n) for n in rng.integers(0, count // 3, count))
    if kind == "weights":
        weights = tuple(rng.choice([0.5, 1.0, 4.0], count).tolist())
    return Slice(tuple(theirs.tolist()), tuple(ours.tolist()), groups, weights)


def taken(rows: Slice, order: Sequence[int]) -> Slice:
    return Slice(
        tuple(rows.theirs[n] for n in order),
        tuple(rows.ours[n] for n in order),
        tuple(rows.groups[n] for n in order),
        tuple(rows.weights[n] for n in order),
    )


def judged(rows: Slice) -> PairedEvidence:
    return paired_evidence(rows, PARAMS.evaluate, PARAMS.promote)


def verdict_on(frozen: Slice, recent: Slice, sliced: dict[str, Slice]) -> tuple[str, tuple[str, ...]]:
    evidence = PromotionEvidence(
        judged(frozen), judged(recent), "champion", slices={name: judged(rows) for name, rows in sliced.items()}
    )
    found = should_promote(evidence, PARAMS.promote)
    return found.outcome, found.reasons


@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_does_not_depend_on_the_order_of_rows(kind: str) -> None:
    for seed in SEEDS:
        frozen, recent = rows_of(kind, seed), rows_of(kind, seed + 100)
        order = np.random.default_rng(seed).permutation(120).tolist()
        other = order[::-1]
        one = verdict_on(frozen, recent, {"label a": frozen, "label b": recent})
        same = verdict_on(
            taken(frozen, order),
            taken(recent, other),
            {"label b": taken(recent, order), "label a": taken(frozen, other)},
        )
        assert one == same


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_of_groups_do_not_matter(kind: str) -> None:
    for seed in SEEDS:
        rows = rows_of(kind, seed)
        renamed = replace(rows, groups=tuple(f"user {hash_of(name)}" for name in rows.groups))
        assert judged(rows) == judged(renamed)


def hash_of(name: str) -> int:
    """Another order of the same names."""
    return (int(name) * 7919 + 13) % 104729


def test_rows_of_one_group_that_are_alike_show_no_more_than_one_of_them() -> None:
    """Five times the same burst of labels is one observation: no p-value gets smaller."""
    for seed in SEEDS:
        rows = rows_of("right or wrong", seed, 60)
        fivefold = taken(rows, [n for n in range(60) for _ in range(5)])
        once, burst = judged(replace(rows, groups=rows.groups)), judged(fivefold)
        assert burst.difference == pytest.approx(once.difference)
        assert burst.effective is not None and burst.effective <= 60
        assert burst.p_value >= 0.8 * once.p_value - 0.002  # the flips of signs are drawn


@pytest.mark.parametrize("champion_is_wrong", [(0, 1, 0, 1, 1), (1, 1, 1, 0, 0)])
def test_labels_of_known_propensity_never_bias_the_difference(champion_is_wrong: tuple[int, ...]) -> None:
    """Over all draws of labels, each with its probability, the weighted total is the total of all rows, exactly.

    Wrong answers and doubtful ones are drawn three and five times as often: unweighted, the mean would be off.
    """
    wrong = np.array(champion_is_wrong)
    ours = np.array([1, 1, 0, 0, 1])
    differences = (ours - (1 - wrong)).astype(float)
    propensities = np.where(wrong == 1, 0.6, 0.2) * np.array([1, 0.2, 1, 1, 0.2])
    weighted, unweighted, chance_of_all = 0.0, 0.0, 0.0
    for drawn in product((False, True), repeat=5):
        kept = np.array(drawn)
        chance = float(np.prod(np.where(kept, propensities, 1 - propensities)))
        chance_of_all += chance
        if kept.any():
            units = units_of(differences[kept], None, (1 / propensities[kept]).tolist())
            weighted += chance * float(units.totals.sum())
            unweighted += chance * float(differences[kept].mean())
    assert chance_of_all == pytest.approx(1)
    assert weighted == pytest.approx(differences.sum())
    assert abs(unweighted - differences.mean()) > 0.05


def test_weighted_labels_of_an_equal_challenger_are_no_gain() -> None:
    """Complaints three times as often, with the propensity known: the mean over many draws is 0, and few p-values are small."""
    rng, means, small = np.random.default_rng(5), [], 0
    for _ in range(400):
        theirs, ours = ((rng.random(900) < 0.85).astype(float) for _ in range(2))
        propensity = np.where(theirs == 0, 0.3, 0.1)
        kept = rng.random(900) < propensity
        scores = Slice(
            tuple(theirs[kept].tolist()),
            tuple(ours[kept].tolist()),
            tuple(str(n) for n in range(int(kept.sum()))),
            tuple((1 / propensity[kept]).tolist()),
        )
        found = judged(scores)
        means.append(found.difference)
        small += found.p_value < PARAMS.promote.alpha
    assert (
        abs(float(np.mean(means))) < 3 * float(np.std(means)) / 20 + 0.003
    )  # three standard errors, and the ratio's own bias
    assert small / 400 < 0.075


def test_the_verdict_on_traffic_does_not_depend_on_the_batches_in_which_labels_come() -> None:
    """The same labels in one batch or many, in any order: only which are in counts when the decision is taken."""
    rng = np.random.default_rng(7)
    differing = tuple(Disagreement(request_id=f"r{n}", champion="a", challenger="b") for n in range(150))
    labels = {each.request_id: float(rng.choice([-1, 1, 1])) for each in differing[:60]}
    compared = TrafficComparison(
        champion="1",
        challenger="2",
        recent=TrafficSample(rows=1500, differing=differing),
        earlier=TrafficSample(rows=1500, differing=differing),
    ).with_asked(60, 0)
    base = PromotionEvidence(judged(rows_of("right or wrong", 1)), judged(rows_of("right or wrong", 2)), "champion")
    found = set()
    for order in (list(labels), list(labels)[::-1], sorted(labels, key=hash)):
        known: dict[str, float] = {}
        for request in order:
            known[request] = labels[request]
        evidence = replace(base, traffic=traffic_evidence(compared, known, PARAMS.evaluate))
        verdict = should_promote_on_traffic(evidence, PARAMS.promote)
        found.add((verdict.outcome, verdict.reasons))
    assert len(found) == 1

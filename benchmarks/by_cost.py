"""What judging by cost finds: the monitor, a rollback and a trial if a missed fraud costs 50 (`promote.costs`).

    python benchmarks/by_cost.py [--quick]

Simulated answers: a request in 20 is a fraud; the champion finds 90% of them and gets 95% of the others right. Accuracy hardly
moves if frauds are missed, and what mistakes cost multiplies. The monitor has 500 reference rows of the same distribution, and
its run length is that of params.yaml. A trial has 2,000 requests that both versions answer, and 200 labels of disagreements.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shared.promotions import ratio_with_interval
from shared.record import Claim, write

from perpetune.evaluation.scores.mistake_costs import MistakeCosts
from perpetune.loop.rollout.replay import MOST_ROWS
from perpetune.monitoring.trial_evidence import quality_of_disagreements
from perpetune.params import Params, load_params
from perpetune.policy.promotion.cost_margin import margin_by_cost
from perpetune.policy.rollout import ALPHA, rules_for_quality
from perpetune.statistics.disagreements import Disagreements
from perpetune.statistics.paired import compare
from perpetune.statistics.sequential.change_point import evidence_paths

Numbers = npt.NDArray[np.float64]
FRAUD, FOUND, RIGHT = 0.05, 0.9, 0.95
COSTS = MistakeCosts({"fraud": {"*": 50.0}})
REFERENCE, FALSE_ALARMS, SEED = 500, 10_000, 58
ROWS, LABELS, AGAIN = 2000, 200, 0.5  # of a trial; the ratio of its mistakes that another version makes too


@dataclass(frozen=True)
class Version:
    """The ratio of frauds that it finds, and of other requests that it gets right."""

    found: float = FOUND
    right: float = RIGHT


EQUAL, MISSES, WORSE_AND_RIGHTER = Version(), Version(found=0.6), Version(found=0.7, right=0.975)


@dataclass(frozen=True)
class Rate:
    """How often something was found, by cost and by accuracy, with 95% intervals."""

    what: str
    simulated: int
    by_cost: tuple[float, float, float]
    by_accuracy: tuple[float, float, float]


def scores(rng: np.random.Generator, version: Version, shape: tuple[int, ...]) -> tuple[Numbers, Numbers]:
    """Scores by cost and by accuracy of the same answers."""
    fraud = rng.random(shape) < FRAUD
    right = rng.random(shape) < np.where(fraud, version.found, version.right)
    return _by_cost(fraud, right), right.astype(np.float64)


def _by_cost(fraud: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> Numbers:
    cheap, dear = (COSTS.score(label, "other") for label in ("good", "fraud"))
    return np.where(right, 1.0, np.where(fraud, dear, cheap))


def alarms(version: Version, labels: int, simulated: int, params: Params, what: str) -> Rate:
    """How often the monitor raises an alarm within so many labels of the version."""
    rng = np.random.default_rng(SEED)
    paths = zip(scores(rng, version, (simulated, labels)), scores(rng, EQUAL, (simulated, REFERENCE)), strict=True)
    watch = params.watch
    found = [
        int((evidence_paths(now, then, watch.margin, every=10).max(axis=1) >= watch.run_length).sum())
        for now, then in paths
    ]
    return Rate(what, simulated, *(ratio_with_interval(count, simulated) for count in found))


def both(rng: np.random.Generator, ours: Version, rows: int) -> tuple[npt.NDArray[np.bool_], ...]:
    """Which rows are frauds, and which ones champion and `ours` get right; they share `AGAIN` of the champion's mistakes."""
    fraud = rng.random(rows) < FRAUD
    wrong = rng.random(rows) >= np.where(fraud, FOUND, RIGHT)
    shared = wrong & (rng.random(rows) < AGAIN)
    mistakes = 1 - np.where(fraud, ours.found, ours.right)
    known = AGAIN * (1 - np.where(fraud, FOUND, RIGHT))
    others = rng.random(rows) < (mistakes - known) / (1 - (1 - np.where(fraud, FOUND, RIGHT)))
    return fraud, ~wrong, ~(shared | (~wrong & others))


def trials(ours: Version, simulated: int, params: Params, what: str, *, stopped: bool) -> Rate:
    """How often the last look of a trial stops a version, or shows that it is within the margin."""
    rng, counts = np.random.default_rng(SEED), [0, 0]
    cost_of_champion = (FRAUD * (1 - FOUND) * COSTS.largest + (1 - FRAUD) * (1 - RIGHT)) / COSTS.largest
    margins = (margin_by_cost(params.release.margin, 1 - cost_of_champion), None)
    for _ in range(simulated):
        fraud, champion, challenger = both(rng, ours, ROWS)
        differing = np.flatnonzero(champion != challenger)
        drawn = rng.permutation(differing)[:LABELS]
        for place, margin in enumerate(margins):
            first, second = (
                _by_cost(fraud, each) if place == 0 else each.astype(np.float64) for each in (champion, challenger)
            )
            rules = rules_for_quality(params.release, margin)
            found = Disagreements(ROWS, len(differing), tuple(np.sort((second - first)[drawn]).tolist()))
            quality = quality_of_disagreements(found, len(drawn), rules, at_end=True)
            assert quality.last is not None
            kept = max(quality.interval.low, quality.last.low) > -rules.margin
            counts[place] += not kept if stopped else kept
    return Rate(what, simulated, *(ratio_with_interval(count, simulated) for count in counts))


def rollbacks(ours: Version, simulated: int, params: Params, what: str) -> Rate:
    """How often the version before, asked the same inputs, is shown to be better than a champion that misses frauds."""
    rng, counts = np.random.default_rng(SEED), [0, 0]
    for _ in range(simulated):
        fraud, previous, champion = both(rng, ours, MOST_ROWS)
        for place in (0, 1):
            first, second = (
                _by_cost(fraud, each) if place == 0 else each.astype(np.float64) for each in (champion, previous)
            )
            found = compare(first.tolist(), second.tolist(), confidence=0.95, samples=100, seed=0)
            counts[place] += found.difference > 0 and found.p_value < ALPHA
    return Rate(what, simulated, *(ratio_with_interval(count, simulated) for count in counts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer simulations, no output file")
    quick = parser.parse_args().quick
    simulated = 50 if quick else 1000
    params, began = load_params(Path("params.yaml")), time.perf_counter()
    found = [
        alarms(EQUAL, FALSE_ALARMS, simulated // 5, params, f"monitor: a false alarm within {FALSE_ALARMS:,} labels"),
        alarms(MISSES, 2000, simulated, params, "monitor: 60% of frauds found instead of 90%, alarm within 2,000 labels"),
        trials(EQUAL, simulated, params, "trial: an equal version is shown to be within the margin", stopped=False),
        trials(WORSE_AND_RIGHTER, simulated, params, "trial: misses 30% of frauds and is right more often, stopped", stopped=True),
        rollbacks(EQUAL, simulated, params, "rollback: an equal version before is taken for better"),
        rollbacks(MISSES, simulated, params, "rollback: the version before finds 90% of frauds instead of 60%"),
    ]  # fmt: skip
    for each in found:
        print(f"{each.what:75} by cost {each.by_cost[0]:6.1%}   by accuracy {each.by_accuracy[0]:6.1%}", flush=True)
    goals = [("most", 0.4), ("least", 0.5), ("least", 0.5), ("least", 0.95), ("most", ALPHA)]
    claims = [_claim(rate, *goal) for rate, goal in zip(found, goals, strict=False)]  # ten frauds show little: no goal
    if not quick:
        print(write("by_cost", claims, [asdict(each) for each in found], time.perf_counter() - began))
    return 0 if quick or all(claim.holds for claim in claims) else 1


def _claim(found: Rate, bound: str, goal: float) -> Claim:
    rate, low, high = found.by_cost
    return Claim(
        f"{found.what}, by cost", rate, (low, high), goal, bool(rate <= goal if bound == "most" else rate >= goal)
    )


if __name__ == "__main__":
    raise SystemExit(main())

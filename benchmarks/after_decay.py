"""The gate after decay: how often it promotes what is equal, better and worse, beside the gate of other refreshes.

    python benchmarks/after_decay.py [--quick]

Simulated answers of champion and challenger, 85% right, of which 10% differ; 150 rows in each holdout, about what 300 labels
after a change bring. A refresh for decay that no change has caused comes at most once in `watch.run_length` labels. The rows
that raised such an alarm are partly in the recent holdout, and on them the champion was unlucky: at worst all of them are,
which is simulated as that of 50 holdouts on which it has the fewest right answers.

A refresh that follows has 250 rows in each holdout. The last claims are of the whole of them: they go on until two challengers
in a row are rejected, each with the gate after decay ("after decay" below) or with that of other refreshes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from shared.promotions import Answers, Draw, Scenario, Verdicts, drawn, simulate
from shared.record import Claim, write

from perpetune.params import load_params

ROWS, LATER, SEED, UNLUCKY = 150, 250, 52, 50
EQUAL, BETTER, WORSE = drawn(0.85, 0.1), drawn(0.85, 0.1, gain=0.05), drawn(0.85, 0.1, gain=-0.05)
GROWN = drawn(0.85, 0.1, gain=0.02)
MOST_FOR_NOTHING, LEAST_HELP = (
    1.5,
    0.6,
)  # promotions of an equal one after a false alarm; of each that follows and helps


def unluckiest(draw: Draw) -> Draw:
    """That of `UNLUCKY` holdouts on which the champion scores least."""

    def chosen(rng: np.random.Generator, rows: int) -> Answers:
        return min((draw(rng, rows) for _ in range(UNLUCKY)), key=lambda found: float(found.champion.mean()))

    return chosen


SCENARIOS = (
    Scenario("equal", EQUAL, EQUAL, ROWS),
    Scenario("equal, all recent rows those of a false alarm", EQUAL, unluckiest(EQUAL), ROWS),
    Scenario("worse by 5 points, all recent rows those of a false alarm", WORSE, unluckiest(WORSE), ROWS),
    Scenario("worse by 5 points on recent, equal on frozen", EQUAL, WORSE, ROWS),
    Scenario("equal on recent, worse by 5 points on frozen", WORSE, EQUAL, ROWS),
    Scenario("worse by 5 points", WORSE, WORSE, ROWS),
    Scenario("better by 5 points on recent, equal on frozen", EQUAL, BETTER, ROWS),
    Scenario("better by 5 points", BETTER, BETTER, ROWS),
    Scenario("it follows, equal", EQUAL, EQUAL, LATER),
    Scenario("it follows, better by 2 points on recent, equal on frozen", EQUAL, GROWN, LATER),
    Scenario("it follows, better by 2 points", GROWN, GROWN, LATER),
)
FALSE_ALARM, EQUAL_AGAIN, GROWN_AGAIN = SCENARIOS[1].name, SCENARIOS[8].name, SCENARIOS[9].name
GOALS = {  # name: (most or least, goal)
    "equal": ("most", 0.5),
    "worse by 5 points on recent, equal on frozen": ("most", 0.1),
    "equal on recent, worse by 5 points on frozen": ("most", 0.2),
    "worse by 5 points": ("most", 0.05),
    "better by 5 points on recent, equal on frozen": ("least", 0.7),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer simulations")
    simulated = 100 if parser.parse_args().quick else 1000
    params, began = load_params(Path("params.yaml")), time.perf_counter()
    found = []
    for scenario in SCENARIOS:
        pair = [simulate(replace(scenario, after_decay=decayed), simulated, params, SEED) for decayed in (True, False)]
        found.append(pair)
        after, ever = (each.shares["promote"][0] for each in pair)
        print(f"{scenario.name:58} promoted after decay {after:6.1%}, in other refreshes {ever:6.1%}", flush=True)
    claims = [_claim(after) for after, _ in found if after.scenario in GOALS]
    claims += _claims_of_what_follows({each.scenario: (each, ever) for each, ever in found})
    for claim in claims[-2:]:
        print(f"{claim.claim}: {claim.value:.2f}, goal {claim.goal:g}")
    details = [{"after decay": asdict(after), "other refreshes": asdict(ever)} for after, ever in found]
    print(write("after_decay", claims, details, time.perf_counter() - began))
    return 0 if all(claim.holds for claim in claims) else 1


def promotions_that_follow(rate: float) -> float:
    """The expected promotions until two challengers in a row are rejected, if each is promoted at this rate."""
    rejected = 1 - rate
    return (1 - rejected**2) / rejected**2


def _claims_of_what_follows(found: Mapping[str, tuple[Verdicts, Verdicts]]) -> list[Claim]:
    """Of equal challengers after a false alarm whose first one is promoted at the worst rate; and of those that help."""
    first, equal, grown = (
        [each.shares["promote"] for each in found[name]] for name in (FALSE_ALARM, EQUAL_AGAIN, GROWN_AGAIN)
    )
    lenient, low, high = (first[0][end] * (1 + promotions_that_follow(equal[0][end])) for end in range(3))
    strict = first[0][0] * (1 + promotions_that_follow(equal[1][0]))
    print(f"promotions of an equal one for a false alarm if what follows had the other gate: {strict:.2f}")
    many = "promotions of an equal one for a false alarm, with what follows"
    helps = "what follows and is better by 2 points on recent, equal on frozen: promoted"
    return [
        Claim(many, lenient, (low, high), MOST_FOR_NOTHING, lenient <= MOST_FOR_NOTHING),
        Claim(helps, grown[0][0], grown[0][1:], LEAST_HELP, grown[0][0] >= LEAST_HELP),
    ]


def _claim(found: Verdicts) -> Claim:
    bound, goal = GOALS[found.scenario]
    rate, low, high = found.shares["promote"]
    holds = rate <= goal if bound == "most" else rate >= goal
    return Claim(f"after decay, {found.scenario}: promoted", rate, (low, high), goal, bool(holds))


if __name__ == "__main__":
    raise SystemExit(main())

"""When labels that came unasked decide: the power of the test of their selection, and how often complaints pass it.

    make setup && python benchmarks/unasked.py

A tenth of the requests with right answers is labelled, and so many times as many of those with wrong ones (once: a random
tenth that the client does not declare). 85% of the answers are right. The product's bounds on the bias decide, by confidence
alone or together with labels by lot.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from shared.promotions import ratio_with_interval
from shared.record import Claim, write

from perpetune.policy.ignorable import LEVEL, PART
from perpetune.statistics.selection_bias import bias_by_confidence, bias_by_lot, pooled

MARGIN = 0.05
RATE, ACCURACY = 0.1, 0.85
REQUESTS = (10_000, 30_000, 60_000)
TIMES = (1.0, 1.2, 1.5, 2.0, 3.0)
CONFIDENCE = {"sharp": ((8, 1.2), (3, 2)), "weak": ((8, 2), (5, 4))}  # Beta distributions of right and wrong answers
LOTS = (0, 500)  # labels by lot
FALSE, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Found:
    """The ratio of simulations in which unasked labels decide, with its 95% interval; `bias` is that of their mean score."""

    confidence: str
    requests: int
    times: float
    lot: int
    simulated: int
    bias: float
    decide: tuple[float, float, float]


def simulate(confidence: str, requests: int, times: float, lot: int, simulated: int, seed: int) -> Found:
    rng = np.random.default_rng(seed)
    decided = sum(_decides(confidence, requests, times, lot, rng) for _ in range(simulated))
    labelled = ACCURACY / (ACCURACY + times * (1 - ACCURACY))
    return Found(
        confidence, requests, times, lot, simulated, labelled - ACCURACY, ratio_with_interval(decided, simulated)
    )


def _decides(confidence: str, requests: int, times: float, lot: int, rng: np.random.Generator) -> bool:
    """As `perpetune.policy.ignorable` does, on arrays."""
    of_right, of_wrong = CONFIDENCE[confidence]
    right = rng.random(requests) < ACCURACY
    sure = np.where(right, rng.beta(*of_right, requests), rng.beta(*of_wrong, requests))
    came = rng.random(requests) < RATE * np.where(right, 1.0, times)
    known = np.column_stack([sure[came], right[came]])
    tolerance = PART * MARGIN
    by_confidence = bias_by_confidence(sure[came], sure[~came], known, LEVEL)  # type: ignore[arg-type]
    by_lot = None
    if lot:
        drawn = right[rng.choice(requests, lot, replace=False)]
        by_lot = bias_by_lot(right[came].astype(float), np.column_stack([drawn, np.ones(lot)]), LEVEL)  # type: ignore[arg-type]
    if by_lot and by_lot.shown and not by_lot.within(tolerance):
        return False
    found = [by_lot, by_confidence]
    if by_lot and by_confidence:
        found.append(pooled(by_lot, by_confidence, LEVEL))
    return any(each is not None and each.within(tolerance) for each in found)


def claims_of(found: list[Found], *, quick: bool) -> list[Claim]:
    """The claims. In a quick run a claim fails only if its interval excludes the goal."""
    claims = []
    for each in found:
        value, low, high = each.decide
        name = f"{each.confidence} confidence, {each.requests:,} requests, {each.lot} labels by lot"
        if each.bias < -MARGIN:
            holds = (low if quick else value) <= FALSE
            claims.append(Claim(f"complaints {each.times:g} times decide: {name}", value, (low, high), FALSE, holds))
        if each.times == 1 and each.confidence == "sharp" and each.requests == max(REQUESTS):
            holds = (high if quick else value) >= POWER
            claims.append(Claim(f"a random tenth decides: {name}", value, (low, high), POWER, holds))
    return claims


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=1000, help="logs of each kind")
    parser.add_argument("--quick", action="store_true", help="few logs, no output file")
    asked = parser.parse_args()
    began = time.monotonic()
    found: list[Found] = []
    for confidence in CONFIDENCE:
        for requests in REQUESTS:
            for times in TIMES:
                for lot in LOTS:
                    simulated = 40 if asked.quick else asked.simulated
                    found.append(simulate(confidence, requests, times, lot, simulated, len(found)))
                    print(_line(found[-1]), flush=True)
    claims = claims_of(found, quick=asked.quick)
    for claim in claims:
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g}, goal {claim.goal:g}")
    if not asked.quick:
        print(write("unasked", claims, [asdict(each) for each in found], time.monotonic() - began))
    return 0 if all(claim.holds for claim in claims) else 1


def _line(found: Found) -> str:
    return (
        f"{found.confidence:5} confidence, {found.requests:6,} requests, {found.lot:3} by lot, wrong answers labelled "
        f"{found.times:.1f} times as often (bias {100 * found.bias:+.1f} points): decide in {found.decide[0]:6.1%}"
    )


if __name__ == "__main__":
    sys.exit(main())

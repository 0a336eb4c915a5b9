"""The gate when labels are few, and when they are not independent or not representative.

    make setup && python benchmarks/few_labels.py

Answers of a champion and a challenger are simulated; the product's tests, gate, plan of labels and decision on stored
traffic decide. "Labels of people" are those asked for after the refresh; each challenger has holdouts and unlabelled
traffic as stated. Unasked labels go through the product's test of whether they may judge.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shared.promotions import drawn, ratio_with_interval
from shared.record import Claim, write

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.loop.disagreements.comparison import Disagreement, TrafficComparison, TrafficSample
from perpetune.loop.disagreements.decide import traffic_evidence
from perpetune.params import Params, load_params
from perpetune.policy.ignorable import SelectionRow, ignorable
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.gate import should_promote
from perpetune.policy.promotion.traffic_comparison import (
    MOST_TRAFFIC,
    labels_to_ask,
    rows_to_answer,
    should_promote_on_traffic,
)
from perpetune.policy.verdict import Outcome
from perpetune.prediction_log.labels.delays import LabelledGroup, ripe

Numbers = npt.NDArray[np.float64]
ACCURACY, DISCORDANCE = 0.85, 0.10
ROWS, TRAFFIC = 200, 1500
ROUNDS = 4  # of labels
OUTCOMES = ("promote", "collect more labels", "reject")
FALSE_PROMOTIONS, POWER = 0.05, 0.9
DAYS, PER_DAY, DAY = 20, 50, timedelta(days=1)  # of lots
WINDOW, LABELLED, LOT = 2000, 0.1, 50  # requests since the change, the ratio that is labelled unasked, labels by lot


@dataclass(frozen=True)
class Rows:
    """Scores of champion and challenger on rows, and each row's group."""

    champion: Numbers
    challenger: Numbers
    groups: npt.NDArray[np.int64]

    def part(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Rows:
        return Rows(self.champion[chosen], self.challenger[chosen], self.groups[chosen])


Source = Callable[[np.random.Generator, int], Rows]


@dataclass(frozen=True)
class Case:
    """How recent and earlier answers are drawn; `frozen` and `recent` rows of the holdouts; goal and kind of the claim.

    `complaints`: wrong answers are labelled so many times as often, unasked; the recent holdout is then made of what may
    judge. `noise`: the ratio of labels that are wrong. `ties`: the ratio of disagreements of which both are wrong.
    """

    name: str
    recent_traffic: Source
    earlier_traffic: Source
    frozen: int = ROWS
    recent: int = ROWS
    complaints: float | None = None
    noise: float = 0.0
    ties: float = 0.0
    claim: str | None = None
    delayed: bool = False


@dataclass(frozen=True)
class Found:
    """Ratios of outcomes with 95% intervals, and the labels of people asked for: mean and 95th percentile."""

    name: str
    claim: str | None
    simulated: int
    frozen: int
    recent: int
    outcomes: dict[str, tuple[float, float, float]]
    before: float
    labels: float
    most_labels: float
    refused: float


def alone(accuracy: float, discordance: float, gain: float = 0.0) -> Source:
    """Independent rows."""
    draw = drawn(accuracy, discordance, gain)

    def rows(rng: np.random.Generator, count: int) -> Rows:
        answers = draw(rng, count)
        return Rows(answers.champion, answers.challenger, np.arange(count))

    return rows


def bursts(source: Source, size: int) -> Source:
    """Every row comes `size` times, as one group."""

    def rows(rng: np.random.Generator, count: int) -> Rows:
        some = source(rng, -(-count // size))
        return some.part(np.repeat(np.arange(len(some.champion)), size)[:count])

    return rows


def heavy(source: Source, ratio: float) -> Source:
    """One user sends this ratio of the rows, all alike."""

    def rows(rng: np.random.Generator, count: int) -> Rows:
        some = source(rng, count)
        return some.part(np.where(np.arange(count) < ratio * count, 0, np.arange(count)))

    return rows


def graded(source: Source) -> Source:
    """A right answer scores 0.95 and a wrong one 0, as a token F1 of which one answer in seven loses much."""

    def rows(rng: np.random.Generator, count: int) -> Rows:
        some = source(rng, count)
        return Rows(0.95 * some.champion, 0.95 * some.challenger, some.groups)

    return rows


def cases() -> list[Case]:
    same, better, worse = (alone(ACCURACY, DISCORDANCE, gain) for gain in (0.0, 0.05, -0.03))
    good = alone(0.99, 0.006, 0.0)
    return [
        Case("better by 5 on recent traffic, equal on frozen", better, same, claim="promoted"),
        Case("the same, 183 and 111 rows", better, same, frozen=183, recent=111, claim="promoted"),
        Case("the same, 500 rows", better, same, frozen=500, recent=500, claim="promoted"),
        Case("the same, a quarter of disagreements both wrong", better, same, ties=0.25),
        Case("the same, 10% of labels wrong", better, same, noise=0.1),
        Case("better by 5 on both", better, better, claim="promoted"),
        Case("A/A", same, same, claim="false promotions"),
        Case("A/A, a quarter of disagreements both wrong", same, same, ties=0.25, claim="false promotions"),
        Case("A/A, 10% of labels wrong", same, same, noise=0.1, claim="false promotions"),
        Case("A/A, bursts of 5 alike", bursts(same, 5), bursts(same, 5), claim="false promotions"),
        Case("A/A, one user with 30%", heavy(same, 0.3), heavy(same, 0.3), claim="false promotions"),
        Case("A/A, graded", graded(same), graded(same), claim="false promotions"),
        Case("A/A, complaints twice as often", same, same, complaints=2, claim="false promotions"),
        Case("A/A, complaints three times as often", same, same, complaints=3, claim="false promotions"),
        Case("A/A, labels of wrong answers come first", same, same, delayed=True, claim="false promotions"),
        Case("better by 5 on recent, complaints three times", better, same, complaints=3),
        Case("better by 5 on recent, labels unasked at random", better, same, complaints=1),
        Case("better by 5 on recent, worse by the margin before", better, worse),
        Case("99% right, errors halved", alone(0.99, 0.008, 0.005), good, frozen=500, recent=500, claim="promoted"),
        Case("99% right, A/A", good, good, frozen=500, recent=500, claim="false promotions"),
    ]


def simulate(case: Case, simulated: int, params: Params, seed: int) -> Found:
    rng = np.random.default_rng(seed)
    outcomes, labels, before, refused = [], [], 0, 0
    for _ in range(simulated):
        outcome, asked, at_once, trusted = _one(case, params, rng)
        outcomes.append(outcome)
        labels.append(asked)
        before += at_once
        refused += not trusted
    return Found(
        case.name,
        case.claim,
        simulated,
        case.frozen,
        case.recent,
        {outcome: ratio_with_interval(outcomes.count(outcome), simulated) for outcome in OUTCOMES},
        before / simulated,
        float(np.mean(labels)),
        float(np.quantile(labels, 0.95)),
        refused / simulated,
    )


def _one(case: Case, params: Params, rng: np.random.Generator) -> tuple[str, int, bool, bool]:
    """The last verdict, the labels asked for, whether the holdouts promoted at once, and whether labels were trusted."""
    frozen = _noisy(case.earlier_traffic(rng, case.frozen), case.noise, rng)
    holdout, pool, trusted = _recent(case, params, rng)
    evidence = PromotionEvidence(
        _paired(frozen, params), _paired(holdout, params) if len(holdout.champion) else None, "champion"
    )
    first = should_promote(evidence, params.promote).outcome
    if first != "collect more labels":
        return first, 0, first == "promote", trusted
    recent, wins = _sample("recent", _answered(pool, evidence, params), holdout, case, rng)
    earlier, more = _sample("earlier", case.earlier_traffic(rng, TRAFFIC), frozen, case, rng)
    compared = TrafficComparison(champion="1", challenger="2", recent=recent, earlier=earlier)
    wins |= more
    evidence = replace(evidence, traffic=traffic_evidence(compared, {}, params.evaluate))
    outcome: Outcome = first
    for _ in range(ROUNDS):
        plan = labels_to_ask(evidence, params.promote)
        left = [len(each.differing) - each.asked for each in (compared.recent, compared.earlier)]
        plan = replace(plan, recent=min(plan.recent, left[0]), earlier=min(plan.earlier, left[1]))
        if not plan.total:
            outcome = should_promote_on_traffic(evidence, params.promote).outcome
            break
        compared = compared.with_asked(plan.recent, plan.earlier)
        evidence = replace(evidence, traffic=traffic_evidence(compared, wins, params.evaluate))
        outcome = should_promote_on_traffic(evidence, params.promote).outcome
        if outcome != "collect more labels":
            break
    return outcome, len(compared.asked()), False, trusted


def _answered(pool: Rows, evidence: PromotionEvidence, params: Params) -> Rows:
    """The recent requests that both answer: more than the first ones if these differ on few."""
    first = _first(pool)
    differing = int((first.champion != first.challenger).sum())
    rows = rows_to_answer(evidence, differing, len(first.champion), params.promote)
    return pool.part(np.arange(min(rows, len(pool.champion))))


def _recent(case: Case, params: Params, rng: np.random.Generator) -> tuple[Rows, Rows, bool]:
    """The recent holdout, unlabelled traffic, and whether unasked labels may judge."""
    if case.delayed:
        pool = case.recent_traffic(rng, MOST_TRAFFIC * TRAFFIC)
        lots = case.recent_traffic(rng, DAYS * PER_DAY)
        holdout = lots.part(_ripe(lots.champion == 1) & (rng.random(DAYS * PER_DAY) < params.split.recent))
        return holdout, pool, True
    if case.complaints is None:
        holdout = _noisy(case.recent_traffic(rng, case.recent), case.noise, rng)
        return holdout, case.recent_traffic(rng, MOST_TRAFFIC * TRAFFIC), True
    seen = case.recent_traffic(rng, WINDOW)
    wrong = seen.champion == 0
    unasked = rng.random(WINDOW) < LABELLED * np.where(wrong, case.complaints, 1.0)
    lot = rng.random(WINDOW) < LOT / WINDOW
    sure = np.clip(np.where(wrong, rng.beta(3, 2, WINDOW), rng.beta(8, 1.2, WINDOW)), 0.01, 0.99)
    rows = [
        SelectionRow(
            float(sure[n]),
            float(seen.champion[n]) if unasked[n] or lot[n] else None,
            bool(unasked[n] and not lot[n]),
            1.0 if lot[n] else None,
        )
        for n in range(WINDOW)
    ]
    trusted = ignorable(rows, params.watch.margin, params.watch.unasked).decides
    judging = (unasked | lot) if trusted else lot
    held = judging & (rng.random(WINDOW) < 2 * params.split.recent)
    return seen.part(held), seen.part(~unasked & ~lot), trusted


def _first(rows: Rows) -> Rows:
    return rows.part(np.arange(min(TRAFFIC, len(rows.champion))))


def _ripe(right: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which labels count at the end, if each day's requests are one lot and wrong answers are labelled first."""
    end = datetime(2026, 1, 1, tzinfo=UTC) + DAYS * DAY
    asked = [end - (DAYS - n // PER_DAY) * DAY for n in range(len(right))]
    labelled = [
        when + (3 * DAY if is_right else timedelta(hours=1)) for when, is_right in zip(asked, right, strict=True)
    ]
    came = [(when, label if label <= end else None) for when, label in zip(asked, labelled, strict=True)]
    groups = [LabelledGroup(came[first : first + PER_DAY]) for first in range(0, len(came), PER_DAY)]
    until = [ripe(group, groups, end) for group in groups for _ in range(PER_DAY)]
    return np.array([label is not None and when <= last for (when, label), last in zip(came, until, strict=True)])


def _noisy(rows: Rows, noise: float, rng: np.random.Generator) -> Rows:
    """Of two labels, a wrong label makes a right answer wrong and a wrong one right."""
    wrong = rng.random(len(rows.champion)) < noise
    return replace(
        rows,
        champion=np.where(wrong, 1 - rows.champion, rows.champion),
        challenger=np.where(wrong, 1 - rows.challenger, rows.challenger),
    )


def _sample(
    name: str, traffic: Rows, holdout: Rows, case: Case, rng: np.random.Generator
) -> tuple[TrafficSample, dict[str, float]]:
    """The sample without its labels, and the differences that labels would show; one row of each group."""
    _, first = np.unique(traffic.groups, return_index=True)
    single = traffic.part(first)
    change = single.challenger - single.champion
    differing = change[change != 0]
    tied = rng.binomial(len(differing), case.ties / (1 - case.ties)) if case.ties else 0
    shown = np.concatenate([np.where(rng.random(len(differing)) < case.noise, -differing, differing), np.zeros(tied)])
    rng.shuffle(shown)
    rows = [Disagreement(request_id=f"{name}-{n}", champion="", challenger="") for n in range(len(shown))]
    held = _units(holdout)
    sample = TrafficSample(
        rows=len(single.champion),
        differing=tuple(rows),
        held_out=len(held),
        held_out_differing=tuple(held[held != 0].tolist()),
    )
    return sample, {row.request_id: float(value) for row, value in zip(rows, shown, strict=True)}


def _units(holdout: Rows) -> Numbers:
    """The difference of one row of each group."""
    _, first = np.unique(holdout.groups, return_index=True)
    return np.asarray((holdout.challenger - holdout.champion)[first])


def _paired(rows: Rows, params: Params) -> PairedEvidence:
    scores = Slice(
        tuple(rows.champion.tolist()), tuple(rows.challenger.tolist()), tuple(rows.groups.astype(str).tolist())
    )
    return paired_evidence(scores, params.evaluate, params.promote)


def claims_of(found: list[Found], *, quick: bool) -> list[Claim]:
    """The claims. In a quick run a claim fails only if its interval excludes the goal."""
    claims = []
    for each in found:
        value, low, high = each.outcomes["promote"]
        name = f"{each.name}, {each.frozen} and {each.recent} rows"
        if each.claim == "false promotions":
            holds = (low if quick else value) <= FALSE_PROMOTIONS
            claims.append(Claim(f"false promotions: {name}", value, (low, high), FALSE_PROMOTIONS, holds))
        if each.claim == "promoted":
            claims.append(Claim(f"promoted: {name}", value, (low, high), POWER, (high if quick else value) >= POWER))
            labels = (each.labels, each.most_labels)
            claims.append(Claim(f"labels asked for: {name}", each.labels, labels, 200, each.most_labels <= 200))
    return claims


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=1000, help="challengers of each kind")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    parser.add_argument("--quick", action="store_true", help="few challengers, no output file")
    asked = parser.parse_args()
    began, params = time.monotonic(), load_params(Path("params.yaml"))
    found = []
    for seed, case in enumerate(cases()):
        if asked.only in case.name:
            found.append(simulate(case, 40 if asked.quick else asked.simulated, params, seed))
            print(_line(found[-1]), flush=True)
    claims = claims_of(found, quick=asked.quick)
    for claim in claims:
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g}, goal {claim.goal:g}")
    if not asked.quick and not asked.only:
        print(
            write(
                "few_labels",
                claims,
                [asdict(each) for each in found],
                time.monotonic() - began,
            )
        )
    return 0 if all(claim.holds for claim in claims) else 1


def _line(found: Found) -> str:
    shares = "  ".join(f"{outcome} {100 * found.outcomes[outcome][0]:5.1f}%" for outcome in OUTCOMES)
    refused = f"  labels refused {found.refused:.0%}" if found.refused else ""
    return (
        f"{found.name:52} {found.frozen}/{found.recent}  {shares}  at once {found.before:5.1%}  labels {found.labels:4.0f} "
        f"(95%: {found.most_labels:.0f}){refused}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Error rates of trials: how often a challenger that is equal or worse is promoted, and when a worse one is stopped.

    make setup && python benchmarks/trials.py

Requests, answers and labels are simulated; the product's lot, tests and verdicts decide, one check a day. Both versions
answer the challenger's 2,000 requests (200 a day), as a shadow or a paired canary do; people label what is asked for within
a day. The champion is right in 85% of answers, and an equal challenger answers one request in ten differently.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shared.promotions import drawn, ratio_with_interval
from shared.record import Claim, write

from perpetune.monitoring.trial_evidence import quality_of_disagreements, quality_of_groups
from perpetune.monitoring.trial_lot import wanted_propensity
from perpetune.params import ReleaseParams, load_params
from perpetune.policy.ignorable import SelectionRow, ignorable
from perpetune.policy.rollout import Comparison, TrialEvidence, last_alpha, should_release
from perpetune.policy.verdict import Interval
from perpetune.prediction_log.labels.delays import settled_prefix
from perpetune.statistics.disagreements import Disagreements

Numbers = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
ACCURACY, DISCORDANCE = 0.85, 0.10
PER_DAY = 200
START = datetime(2026, 1, 1, tzinfo=UTC)
SAME = Comparison(0.0, 0.0, 0.0, Interval(-0.01, 0.01, 0.98), 2000, 2000)  # errors and slow answers are alike
UNASKED = 0.05  # of the requests are labelled
FREE_TEXT = 0.35  # standard deviation of a difference of scores of free text
CHAMPIONS = 9  # requests of the champion for each of the challenger's, in a canary


@dataclass(frozen=True)
class Case:
    """What differs from the ordinary trial, in which all labels come within a day.

    `worse`: points of accuracy. `ties`: the ratio of disagreements of which both are wrong. `noise`: of labels are wrong.
    `burst`: requests alike, one after another. `heavy`: the part of one user. `slow`: right answers of the champion are
    labelled after three days, wrong ones after an hour. `answered`: the ratio of the labels asked for that come.
    `complaints`: a tenth of the requests is labelled unasked, wrong answers so many times as often. `groups`: two groups of
    users instead, 5% of whose requests are labelled by a lot of the client. `text`: free text, of which most answers differ.
    """

    name: str
    worse: float = 0.0
    discordance: float = DISCORDANCE
    ties: float = 0.0
    noise: float = 0.0
    burst: int = 1
    heavy: float = 0.0
    slow: bool = False
    answered: float = 1.0
    complaints: float | None = None
    groups: bool = False
    text: bool = False


@dataclass(frozen=True)
class Requests:
    """Differences of scores (challenger minus champion), which requests are answered differently, and who sent them."""

    differences: Numbers
    differing: Bools
    champion: Numbers
    clusters: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its verdict, the challenger's requests by then, the labels asked for, and the day."""

    outcome: str
    requests: int
    asked: int
    day: int
    harm: bool


@dataclass(frozen=True)
class Found:
    """Ratios of trials, with 95% intervals; `requests` and `days` are medians, `asked` is a mean."""

    name: str
    worse: float
    simulated: int
    promoted: tuple[float, float, float]
    harmful: tuple[float, float, float]
    stopped_early: tuple[float, float, float]
    requests: float
    asked: float
    days: float


def cases() -> list[Case]:
    streams = [
        Case("ordinary"),
        Case("10% of labels wrong", noise=0.1),
        Case("bursts of 5 alike", burst=5),
        Case("one user with 30%", heavy=0.3),
        Case("wrong answers labelled after an hour, right ones after 3 days", slow=True),
        Case("half of the labels come", answered=0.5),
        Case("complaints twice as often", complaints=2),
        Case("complaints three times as often", complaints=3),
        Case("a quarter of disagreements both wrong", ties=0.25),
        Case("twice the discordance", discordance=0.2),
    ]
    found = [replace(each, worse=worse) for each in streams for worse in (0.0, 0.08, 0.20)]
    found += [replace(streams[0], worse=0.05), replace(streams[-1], worse=0.05)]
    found += [Case("free text", worse=worse, text=True) for worse in (0.0, 0.08, 0.20)]
    return [*found, *(Case("two groups, 5% labelled", worse=worse, groups=True) for worse in (0.0, 0.08, 0.20))]


def simulate(case: Case, simulated: int, rules: ReleaseParams, seed: int) -> Found:
    rng = np.random.default_rng(seed)
    run = _groups if case.groups else _paired
    trials = [run(case, rules, rng) for _ in range(simulated)]
    promoted, harmful, early = (
        ratio_with_interval(sum(chosen), simulated)
        for chosen in (
            [each.outcome == "promote" for each in trials],
            [each.harm for each in trials],
            [each.outcome == "abort" and each.requests < rules.max_requests for each in trials],
        )
    )
    return Found(
        case.name,
        case.worse,
        simulated,
        promoted,
        harmful,
        early,
        float(np.median([each.requests for each in trials])),
        float(np.mean([each.asked for each in trials])),
        float(np.median([each.day for each in trials])),
    )


def _paired(case: Case, rules: ReleaseParams, rng: np.random.Generator) -> Outcome:
    count = rules.max_requests
    sent = _requests(case, count, rng)
    day = np.arange(count) // PER_DAY
    kept = np.zeros(count, dtype=bool)
    kept[np.unique(np.column_stack([sent.clusters, day]), axis=0, return_index=True)[1]] = True
    lot, comes = rng.random(count), rng.random(count) < case.answered
    delay = np.where(sent.champion == 1, 72.0, 1.0) if case.slow else rng.uniform(1, 24, count)  # hours
    unasked = _unasked(case, sent, rng)
    asked_at = np.full(count, -1)
    propensity, asked = 0.0, 0
    for today in range(1, count // PER_DAY + int(rules.label_days) + 3):
        known = kept & (day < today)
        differing = np.flatnonzero(known & sent.differing)
        requests = min(today * PER_DAY, count)
        propensity = wanted_propensity(requests, int(known.sum()), len(differing), propensity, rules, last_alpha(rules))
        new = differing[(lot[differing] < propensity) & (asked_at[differing] < 0)][: max(rules.labels - asked, 0)]
        asked_at[new], asked = today, asked + len(new)
        drawn_rows = differing[asked_at[differing] >= 0]
        labelled, awaited = _labelled(drawn_rows, asked_at, delay, comes, today, rules)
        others = differing[unasked[differing] & (asked_at[differing] < 0) & (day[differing] < today - 3)]
        rows = np.concatenate([labelled, others])
        found = Disagreements(int(known.sum()), len(differing), tuple(sent.differences[rows].tolist()))
        at_end = requests >= count and not awaited
        quality = quality_of_disagreements(found, asked, rules, at_end=at_end)
        verdict = should_release(TrialEvidence("shadow", requests, quality, SAME, SAME, awaited=awaited), rules)
        if verdict.outcome != "continue":
            return Outcome(verdict.outcome, requests, asked, today, quality.interval.high < -rules.margin)
    raise AssertionError("the trial did not end")


def _labelled(
    rows: npt.NDArray[np.int64],
    asked_at: npt.NDArray[np.int64],
    delay: Numbers,
    comes: Bools,
    today: int,
    rules: ReleaseParams,
) -> tuple[npt.NDArray[np.int64], int]:
    """The requests of the lot whose labels count today, and how many labels are awaited."""
    order = rows[np.argsort(asked_at[rows], kind="stable")]
    now, patience = START + timedelta(days=today), timedelta(days=rules.label_days)
    times: list[tuple[datetime, datetime | None]] = []
    for row in order.tolist():
        when = START + timedelta(days=int(asked_at[row]))
        label = when + timedelta(hours=float(delay[row]))
        times.append((when, label if comes[row] and label <= now else None))
    count = settled_prefix(times, now, patience)
    awaited = sum(now - when < patience for when, label in times[count:] if label is None)
    return order[:count][[times[place][1] is not None for place in range(count)]], awaited


def _requests(case: Case, count: int, rng: np.random.Generator) -> Requests:
    size = -(-count // case.burst)
    if case.text:
        differences = np.clip(rng.normal(-case.worse, FREE_TEXT, size), -1, 1)
        champion = np.full(size, 1.0)
        differing = rng.random(size) < 0.95
    else:
        answers = drawn(ACCURACY, case.discordance, -case.worse)(rng, size)
        champion, differences = answers.champion, answers.challenger - answers.champion
        tied = (differences == 0) & (champion == 0)
        both_wrong = rng.random(size) < case.ties * case.discordance / max(1 - ACCURACY - case.discordance / 2, 0.01)
        differing = (differences != 0) | (tied & both_wrong)
        wrong = rng.random(size) < case.noise
        differences = np.where(wrong, -differences, differences)
    picked = np.repeat(np.arange(size), case.burst)[:count]
    clusters = picked.copy()
    if case.heavy:
        is_heavy = rng.random(count) < case.heavy
        first = np.minimum.reduceat(picked, np.arange(0, count, PER_DAY))[np.arange(count) // PER_DAY]
        picked, clusters = np.where(is_heavy, first, picked), np.where(is_heavy, -1, clusters)
    return Requests(
        np.asarray(differences[picked], dtype=float), differing[picked], champion[picked].astype(float), clusters
    )


def _unasked(case: Case, sent: Requests, rng: np.random.Generator) -> Bools:
    """Which requests have labels that came unasked and count: none unless they are shown to be ignorable."""
    count = len(sent.champion)
    if case.complaints is None:
        return np.zeros(count, dtype=bool)
    wrong = sent.champion == 0
    came = rng.random(count) < 0.1 * np.where(wrong, case.complaints, 1.0)
    sure = np.where(wrong, rng.beta(3, 2, count), rng.beta(8, 1.2, count))
    rows = [
        SelectionRow(float(confidence), float(not is_wrong) if labelled else None, bool(labelled))
        for confidence, is_wrong, labelled in zip(sure, wrong, came, strict=True)
    ]
    return came if ignorable(rows, 0.05, "test").decides else np.zeros(count, dtype=bool)


def _groups(case: Case, rules: ReleaseParams, rng: np.random.Generator) -> Outcome:
    count = rules.max_requests
    ours = (rng.random(count) < ACCURACY - case.worse).astype(float)[rng.random(count) < UNASKED]
    theirs = (rng.random(CHAMPIONS * count) < ACCURACY).astype(float)[rng.random(CHAMPIONS * count) < UNASKED]
    days = count // PER_DAY
    for today in range(1, days + 1):
        some = [each[: round(len(each) * today / days)].tolist() for each in (ours, theirs)]
        quality = quality_of_groups(some[0], some[1], rules, at_end=today == days)
        verdict = should_release(TrialEvidence("canary", today * PER_DAY, quality, SAME, SAME), rules)
        if verdict.outcome != "continue":
            return Outcome(verdict.outcome, today * PER_DAY, 0, today, quality.interval.high < -rules.margin)
    raise AssertionError("the trial did not end")


def claims_of(found: list[Found], rules: ReleaseParams, *, quick: bool) -> list[Claim]:
    """The claims. In a quick run a claim fails only if its interval excludes the goal."""
    claims = []
    for each in found:
        name = f"{each.name}, {100 * each.worse:.0f} points worse" if each.worse else f"{each.name}, equal"
        value, low, high = each.promoted
        if each.worse:
            holds = (low if quick or each.worse == rules.margin else value) <= rules.alpha
            claims.append(Claim(f"promoted: {name}", value, (low, high), rules.alpha, holds))
        else:
            value, low, high = each.harmful
            claims.append(Claim(f"aborted as harmful: {name}", value, (low, high), rules.alpha, low <= rules.alpha))
        if each.name == "ordinary" and not each.worse:
            value, low, high = each.promoted
            claims.append(Claim(f"promoted: {name}", value, (low, high), 0.8, (high if quick else value) >= 0.8))
        if each.name == "ordinary" and each.worse == 0.20:
            value, low, high = each.stopped_early
            claims.append(Claim(f"stopped early: {name}", value, (low, high), 0.9, (high if quick else value) >= 0.9))
    return claims


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=1000, help="trials of each kind")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    parser.add_argument("--quick", action="store_true", help="few trials, no output file")
    asked = parser.parse_args()
    began = time.monotonic()
    rules = load_params(Path("params.yaml")).release
    found = []
    for seed, case in enumerate(cases()):
        if asked.only in case.name:
            found.append(simulate(case, 20 if asked.quick else asked.simulated, rules, seed))
            print(_line(found[-1]), flush=True)
    claims = claims_of(found, rules, quick=asked.quick)
    for claim in claims:
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g}, goal {claim.goal:g}")
    if not asked.quick and not asked.only:
        details = {"trials": [asdict(each) for each in found], "release": rules.model_dump()}
        print(write("trials", claims, details, time.monotonic() - began))
    return 0 if all(claim.holds for claim in claims) else 1


def _line(found: Found) -> str:
    return (
        f"{found.name:62} worse by {100 * found.worse:4.0f}: promoted {found.promoted[0]:6.1%}, harmful "
        f"{found.harmful[0]:6.1%}, stopped early {found.stopped_early[0]:6.1%}, {found.requests:5.0f} requests, "
        f"{found.asked:4.0f} labels asked for, {found.days:.0f} days"
    )


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.evaluation.scores.mistake_costs import MistakeCosts
from perpetune.evaluation.scores.text_metrics import same_label
from perpetune.monitoring.trial_evidence import LabelState, Pair, canary_evidence, quality_of_groups, shadow_evidence
from perpetune.monitoring.trial_lot import is_drawn, wanted_propensity
from perpetune.params import ReleaseParams
from perpetune.policy.rollout import TrialEvidence, last_alpha, should_release
from perpetune.prediction_log.answers.trial_outcomes import Outcome

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
RULES = ReleaseParams(
    strategy="canary",
    traffic_ratio=0.5,
    margin=0.05,
    alpha=0.05,
    min_labels=50,
    max_requests=2000,
    slow_seconds=2.0,
    parity_prompts=0,
    parity_rate=1.0,
    parity_tolerance=0.05,
)


def outcome(number: int, output: str | None = "good", *, seconds: float = 0.1, **said: object) -> Outcome:
    first_feedback = number if said else None
    time = NOON + timedelta(seconds=number)
    return Outcome(f"r{number}", time, output, 1000 * seconds, first_feedback=first_feedback, **said)  # type: ignore[arg-type]


def answers(chance: float, count: int, seed: int) -> list[Outcome]:
    """Labelled answers that are right with this chance."""
    dice = random.Random(seed)
    return [outcome(number, "good" if dice.random() < chance else "bad", label="good") for number in range(count)]


def test_a_worse_challenger_is_aborted_and_an_equal_one_is_not() -> None:
    champion = answers(0.9, 1500, 1)
    worse = canary_evidence(answers(0.6, 300, 2), champion, RULES, same_label)
    assert should_release(worse, RULES).outcome == "abort"
    assert (worse.quality.rows, worse.quality.champion_rows, worse.requests) == (300, 1500, 300)
    equal = canary_evidence(answers(0.9, 300, 3), champion, RULES, same_label)
    assert should_release(equal, RULES).outcome == "continue"
    better = canary_evidence(answers(0.99, 1500, 4), champion, RULES, same_label)
    assert should_release(better, RULES).outcome == "promote"


def test_failures_and_slow_answers_are_counted_separately() -> None:
    ours = [outcome(1, None, seconds=60), outcome(2, seconds=3), outcome(3), outcome(4)]
    evidence = canary_evidence(ours, [outcome(5)], RULES, same_label)
    assert (evidence.requests, evidence.errors.challenger, evidence.errors.rows) == (4, 0.25, 4)
    assert evidence.slow.challenger == pytest.approx(1 / 3)
    assert evidence.quality.rows == 0
    assert (evidence.quality.interval.low, evidence.quality.interval.high) == (-1, 1)


def test_scores_count_without_labels() -> None:
    ours = [outcome(1, score=1.0), outcome(2, score=0.5), outcome(3)]
    theirs = [outcome(4, score=0.0)]
    evidence = canary_evidence(ours, theirs, RULES, same_label)
    assert (evidence.quality.challenger, evidence.quality.champion, evidence.quality.rows) == (0.75, 0.0, 2)
    labelled = canary_evidence([*ours, outcome(5, "bad", label="good")], theirs, RULES, same_label)
    assert (labelled.quality.challenger, labelled.quality.rows, labelled.quality.champion_rows) == (0.0, 1, 0)


def test_a_shadow_is_compared_on_the_same_requests() -> None:
    pairs = []
    for number in range(400):
        theirs = outcome(number, "good" if number % 10 else "bad", label="good")
        pairs.append((theirs, outcome(number, "good" if number % 11 else None, label="good")))
    evidence = shadow_evidence(pairs, RULES, same_label)
    assert (evidence.strategy, evidence.requests) == ("shadow", 400)
    assert evidence.errors.challenger == pytest.approx(37 / 400)
    assert evidence.errors.champion == 0
    assert evidence.quality.rows == evidence.quality.champion_rows == 363
    assert evidence.quality.challenger == 1.0
    assert evidence.quality.interval.low > 0, "where both answered it is better beyond doubt"


@settings(deadline=None, max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_in_a_check_does_not_matter(dice: random.Random) -> None:
    ours, theirs = answers(0.8, 40, 5), answers(0.9, 60, 6)
    pairs = list(zip(theirs, ours, strict=False))
    canary, shadow = canary_evidence(ours, theirs, RULES, same_label), shadow_evidence(pairs, RULES, same_label)
    for rows in (ours, theirs, pairs):
        dice.shuffle(rows)
    assert canary_evidence(ours, theirs, RULES, same_label) == canary
    assert shadow_evidence(pairs, RULES, same_label) == shadow


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(60)))
def test_the_order_in_which_labels_come_does_not_matter(order: list[int]) -> None:
    ours, theirs = answers(0.7, 60, 5), answers(0.9, 60, 6)
    state = LabelState("2", NOON + timedelta(days=1), propensity=1.0)
    asked = [(NOON + timedelta(hours=1), "disagreement")] * 60

    def numbered(outcomes: Sequence[Outcome], numbers: Sequence[int]) -> list[Outcome]:
        return [
            replace(
                each, first_feedback=number, labelled=NOON + timedelta(hours=1, minutes=number), asked=when, why=why
            )
            for each, number, (when, why) in zip(outcomes, numbers, asked, strict=True)
        ]

    def both(numbers: Sequence[int]) -> list[TrialEvidence]:
        one, other = numbered(theirs, numbers), numbered(ours, numbers)
        pairs = list(zip(one, other, strict=True))
        return [
            canary_evidence(other, one, RULES, same_label),
            shadow_evidence(pairs, RULES, same_label),
            shadow_evidence(pairs, RULES, same_label, state),
        ]

    assert both(order) == both(range(60))


ASKED = NOON + timedelta(hours=1)


def disagreement(number: int, our_right: bool, labelled: datetime | None, *, asked: bool = True) -> Pair:
    """The champion is right if the challenger is not."""
    their = Outcome(
        f"r{number}",
        NOON + timedelta(seconds=number),
        "bad" if our_right else "good",
        100.0,
        label="good" if labelled else None,
        first_feedback=number if labelled else None,
        labelled=labelled,
        asked=ASKED if asked else None,
        why="disagreement" if asked else None,
    )
    return their, replace(their, output="good" if our_right else "bad")


def test_a_quick_label_waits_for_the_slow_ones_that_were_asked_for_with_it() -> None:
    """Wrong answers of the champion are complained of within an hour, right ones confirmed after three days."""
    dice = random.Random(3)
    wins = [dice.random() < 0.5 for _ in range(100)]

    def check(days: float) -> TrialEvidence:
        now = NOON + timedelta(days=days)
        came = [ASKED + (timedelta(hours=1) if won else timedelta(days=3)) for won in wins]
        pairs = [
            disagreement(number, won, when if when <= now else None)
            for number, (won, when) in enumerate(zip(wins, came, strict=True))
        ]
        return shadow_evidence(pairs, RULES, same_label, LabelState("2", now, propensity=1.0))

    soon, later = check(1), check(4)
    assert soon.quality.labels is not None and soon.quality.labels < 10 and soon.awaited > 40
    assert (later.quality.labels, later.awaited) == (100, 0)
    assert later.quality.difference == pytest.approx(2 * sum(wins) / 100 - 1)


def test_a_label_that_does_not_come_is_not_waited_for_longer_than_the_setting_says() -> None:
    pairs = [disagreement(number, True, ASKED if number % 2 else None) for number in range(40)]
    for days, awaited in ((6.9, 20), (7.1, 0)):
        state = LabelState("2", ASKED + timedelta(days=days), propensity=1.0)
        assert shadow_evidence(pairs, RULES, same_label, state).awaited == awaited
    assert shadow_evidence(pairs, RULES, same_label, state).quality.labels == 20


def test_one_request_a_day_counts_of_a_user_and_of_equal_inputs() -> None:
    pairs = [disagreement(number, True, ASKED) for number in range(60)]
    state = LabelState("2", NOON + timedelta(days=1), propensity=1.0)

    def count(**more: str) -> int:
        alike = [(replace(one, **more), replace(other, **more)) for one, other in pairs]  # type: ignore[arg-type]
        return shadow_evidence(alike, RULES, same_label, state).quality.rows

    assert (count(), count(group="one user"), count(input="Well?  ")) == (60, 1, 1)


def test_what_a_lot_draws_does_not_depend_on_the_checks() -> None:
    small, large = ({n for n in range(2000) if is_drawn("2", f"r{n}", part)} for part in (0.1, 0.3))
    assert small < large and 500 < len(large) < 700
    assert len(large & {n for n in range(2000) if is_drawn("3", f"r{n}", 0.3)}) < 300, "of another trial"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 3000), st.floats(0, 1), st.floats(0, 1))
def test_the_propensity_never_falls(compared: int, ratio: float, before: float) -> None:
    wanted = wanted_propensity(compared, compared, int(ratio * compared), before, RULES, 0.04)
    assert before <= wanted <= 1


def test_more_are_drawn_of_the_disagreements_if_fewer_requests_count() -> None:
    """Bursts of five alike leave a fifth of the requests, and the last look needs as many labels as before."""
    alone, bursts = (wanted_propensity(500, compared, compared // 10, 0.0, RULES, 0.04) for compared in (500, 100))
    assert bursts > 3 * alone


@pytest.mark.slow
@pytest.mark.parametrize("complaints", [1, 3])
def test_labels_of_the_lot_are_unbiased_whatever_else_is_labelled(complaints: int) -> None:
    """A challenger that is worse by 4 points; wrong answers of the champion are labelled unasked so many times as often."""
    dice, found = random.Random(complaints), []
    for trial in range(150):
        pairs = []
        for number in range(400):
            if dice.random() >= 0.2:
                pairs.append(agreement(number))
                continue
            won, identity = dice.random() < 0.4, 1000 * trial + number
            asked = is_drawn("2", f"r{identity}", 0.5)
            came = asked or dice.random() < (0.1 * complaints if won else 0.1)
            pairs.append(disagreement(identity, won, ASKED if came else None, asked=asked))
        state = LabelState("2", NOON + timedelta(days=1), propensity=0.5, unasked=False)
        evidence = shadow_evidence(pairs, RULES, same_label, state)
        found.append(evidence.quality.difference)
    assert sum(found) / len(found) == pytest.approx(-0.04, abs=0.008)


def agreement(number: int) -> Pair:
    row = outcome(number)
    row = replace(row, id=f"alike {number}")
    return row, row


@pytest.mark.slow
def test_an_equal_challenger_is_rarely_aborted_at_any_number_of_checks() -> None:
    """Twenty checks of each of sixty trials of an equal challenger: harm is shown in at most 5%."""
    aborted = 0
    for seed in range(60):
        ours, theirs = answers(0.8, 200, 1000 + seed), answers(0.8, 200, 5000 + seed)
        checks = (canary_evidence(ours[:end], theirs[:end], RULES, same_label) for end in range(10, 201, 10))
        aborted += any(should_release(check, RULES).outcome == "abort" for check in checks)
    assert aborted <= 60 * RULES.alpha


def test_answers_that_cost_nothing_for_one_another_differ_if_a_third_is_right() -> None:
    score = MistakeCosts({"a": {"b": 0.0}, "b": {"a": 0.0}, "fraud": {"a": 50.0, "b": 10.0}}).score
    pairs = [(outcome(number, "a", label="fraud"), outcome(number, "b", label="fraud")) for number in range(30)]
    found = shadow_evidence(pairs, RULES, score, apart=same_label)
    assert (found.quality.differing, found.quality.labels) == (30, 30)
    assert found.quality.difference == pytest.approx(0.8)


def test_the_last_look_at_skewed_costs_holds_its_level() -> None:
    """One answer in 50 costs all of a dear mistake, of both versions: Welch's interval excludes 0 too often."""
    rng = np.random.default_rng(15)
    alpha, simulated = last_alpha(RULES), 300
    missed = 0
    for _ in range(simulated):
        ours, theirs = (np.where(rng.random(60) < 1 / 50, 0.0, 0.98).tolist() for _ in range(2))
        last = quality_of_groups(ours, theirs, RULES, at_end=True).last
        assert last is not None
        missed += not last.low <= 0.0 <= last.high
    assert missed / simulated <= 2 * alpha

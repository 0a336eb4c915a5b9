from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.evaluation.scores.text_metrics import same_label
from perpetune.monitoring.trial_evidence import canary_evidence, shadow_evidence
from perpetune.params import ReleaseParams
from perpetune.policy.rollout import should_release
from perpetune.prediction_log.trial_outcomes import Outcome

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


@pytest.mark.slow
def test_an_equal_challenger_is_rarely_aborted_at_any_number_of_checks() -> None:
    """Twenty checks of each of sixty trials of an equal challenger: harm is shown in at most 5%."""
    aborted = 0
    for seed in range(60):
        ours, theirs = answers(0.8, 200, 1000 + seed), answers(0.8, 200, 5000 + seed)
        checks = (canary_evidence(ours[:end], theirs[:end], RULES, same_label) for end in range(10, 201, 10))
        aborted += any(should_release(check, RULES).outcome == "abort" for check in checks)
    assert aborted <= 60 * RULES.alpha

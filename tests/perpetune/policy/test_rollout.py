from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.params import ReleaseParams
from perpetune.policy.retraining import Decay
from perpetune.policy.rollout import (
    Comparison,
    ManualRollback,
    Replay,
    RollbackEvidence,
    TrialEvidence,
    manual_rollback,
    missed_harm,
    should_release,
    should_roll_back,
    why_no_rollback,
)
from perpetune.policy.verdict import Interval, Score

RULES = ReleaseParams(
    strategy="canary",
    traffic_ratio=0.1,
    margin=0.05,
    alpha=0.05,
    min_labels=50,
    max_requests=2000,
    slow_seconds=2.0,
    parity_prompts=0,
    parity_rate=1.0,
    parity_tolerance=0.05,
)


def compared(low: float, high: float, rows: int = 500) -> Comparison:
    middle = (low + high) / 2
    return Comparison(0.5 + middle / 2, 0.5 - middle / 2, middle, Interval(low, high, 1 - 0.05 / 3), rows, rows)


FINE = compared(-0.02, 0.02)
UNKNOWN = compared(-1, 1, rows=0)


def trial(
    quality: Comparison = FINE, errors: Comparison = FINE, slow: Comparison = FINE, requests: int = 500
) -> TrialEvidence:
    return TrialEvidence("canary", requests, quality, errors, slow)


def seen_last(low: float) -> Comparison:
    """Too wide an interval at all checks, and the one of the last look."""
    return replace(compared(-0.1, 0.08), last=Interval(low, 0.03, 0.92))


def waits(quality: Comparison, errors: Comparison = FINE) -> TrialEvidence:
    return replace(trial(quality=quality, errors=errors, requests=2000), awaited=7)


@pytest.mark.parametrize(
    ("evidence", "outcome", "says"),
    [
        (trial(), "promote", "is not worse than the champion by the margin of 5.0 points"),
        (trial(quality=compared(-0.3, -0.06, 10)), "abort", "is worse than the champion by more than the margin"),
        (trial(errors=compared(0.06, 0.3)), "abort", "more errors than the champion"),
        (trial(slow=compared(0.06, 0.3)), "abort", "more slow answers than the champion"),
        (trial(quality=compared(-0.06, 0.06)), "continue", "after 500 of at most 2000 requests"),
        (trial(quality=compared(-0.02, 0.02, 49)), "continue", "50 labels are needed on each side"),
        (trial(slow=compared(0.01, 0.04)), "continue", "There is no verdict"),
        (trial(quality=UNKNOWN), "continue", "0 and 0 rows"),
        (trial(quality=UNKNOWN, requests=2000), "promote", "on errors and slow answers alone"),
        (trial(quality=UNKNOWN, errors=compared(-0.06, 0.06), requests=2000), "abort", "errors are still not shown"),
        (
            trial(quality=compared(-0.1, 0.08), requests=2000),
            "abort",
            "it is not shown that the challenger is not worse",
        ),
        (trial(quality=seen_last(-0.04), requests=2000), "promote", "at the last look 92% interval -4.0 to"),
        (trial(quality=seen_last(-0.06), requests=2000), "abort", "at the last look 92% interval -6.0 to"),
        (trial(quality=compared(-0.2, 0.04), requests=2000), "abort", "although the interval includes the margin"),
        (trial(slow=compared(0.01, 0.04), requests=2000), "promote", "is not worse than the champion by the margin"),
        (waits(FINE), "promote", "is not worse than the champion by the margin"),
        (waits(compared(-0.1, 0.08)), "continue", "waits for 7 labels (`perpetune labels`), each for at most 7 days"),
        (waits(compared(-0.1, 0.08), errors=compared(-0.06, 0.06)), "abort", "errors are still not shown"),
    ],
)
def test_verdicts_on_a_trial(evidence: TrialEvidence, outcome: str, says: str) -> None:
    verdict = should_release(evidence, RULES)
    assert verdict.outcome == outcome
    assert says in verdict.reasons[0]
    assert all(reason.endswith(".") for reason in verdict.reasons)


def of_disagreements(low: float, labels: int, asked: int) -> Comparison:
    return replace(compared(low, 0.06, 2000), differing=200, labels=labels, asked=asked, difference=-0.02)


@pytest.mark.parametrize(
    ("quality", "accepted", "outcome", "says"),
    [
        (UNKNOWN, "never", "abort", "quality is not known, and release.accept_unproven is never"),
        (UNKNOWN, "unlabelled", "promote", "on errors and slow answers alone"),
        (
            of_disagreements(-0.06, 0, 40),
            "unlabelled",
            "promote",
            "0 of 200 requests that are answered differently are",
        ),
        (of_disagreements(-0.06, 19, 40), "unlabelled", "promote", "so that the trial would not have found a loss"),
        (of_disagreements(-0.06, 20, 40), "unlabelled", "abort", "it is not shown that the challenger is not worse"),
        (of_disagreements(-0.06, 20, 40), "never", "abort", "it is not shown that the challenger is not worse"),
        (of_disagreements(-0.06, 20, 40), "observed", "promote", "the observed quality is within"),
        (
            replace(of_disagreements(-0.4, 3, 40), difference=-0.2),
            "unlabelled",
            "abort",
            "although the interval includes",
        ),
        (
            of_disagreements(-0.04, 0, 0),
            "never",
            "promote",
            "2,000 requests, of which 200 are answered differently and 0",
        ),
    ],
)
def test_what_is_promoted_without_proof_is_a_setting(
    quality: Comparison, accepted: str, outcome: str, says: str
) -> None:
    rules = RULES.model_copy(update={"accept_unproven": accepted})
    verdict = should_release(trial(quality=quality, requests=2000), rules)
    assert verdict.outcome == outcome
    assert says in verdict.reasons[0]


ORDER = {"abort": 0, "continue": 1, "promote": 2}
BOUND = st.floats(-0.5, 0.5)


@st.composite
def differences(draw: st.DrawFn) -> Comparison:
    low, high = sorted((draw(BOUND), draw(BOUND)))
    return compared(low, high, draw(st.sampled_from([0, 49, 50, 500])))


@given(
    st.builds(trial, differences(), differences(), differences(), st.sampled_from([10, 1999, 2000])),
    st.sampled_from(["quality", "errors", "slow"]),
    st.floats(0, 0.5),
)
def test_more_harm_never_makes_promotion_likelier(evidence: TrialEvidence, measure: str, harm: float) -> None:
    before: Comparison = getattr(evidence, measure)
    shift = -harm if measure == "quality" else harm
    moved = replace(
        before,
        difference=before.difference + shift,
        interval=Interval(before.interval.low + shift, before.interval.high + shift),
    )
    worse = replace(evidence, **{measure: moved})  # type: ignore[arg-type]
    assert ORDER[should_release(worse, RULES).outcome] <= ORDER[should_release(evidence, RULES).outcome]


@given(st.builds(trial, differences(), differences(), differences(), st.just(2000)))
def test_a_trial_ends_at_its_last_request(evidence: TrialEvidence) -> None:
    assert should_release(evidence, RULES).outcome != "continue"


DECAY = Decay(
    window=Score(0.6, Interval(0.5, 0.7), 60),
    reference=Score(0.9, Interval(0.85, 0.95), 200),
    since_release=Score(0.6, Interval(0.4, 0.8), 60),
    drop=0.3,
    interval=Interval(0.2, 0.4),
    margin=0.05,
    bound=0.82,
    evidence=12_400.4,
    run_length=10_000,
    labels_since_fall=60,
    before=Score(0.9, Interval(0.85, 0.95), 200),
    since_fall=Score(0.6, Interval(0.5, 0.7), 60),
)
EARLY = RollbackEvidence(DECAY, alarmed_by=60, window=300, previous="1", previous_score=0.8)


def test_early_decay_rolls_back() -> None:
    verdict = should_roll_back(EARLY)
    assert verdict is not None
    assert verdict.outcome == "roll back"
    assert verdict.reasons == (
        "The first 60 labels since its release show decay by more than the margin of 5.0 points: the champion scores "
        "60.0 (95% interval 50.0 to 70.0, 60 rows) on its newest labels and was promoted with 90.0 (95% interval 85.0 "
        "to 95.0, 200 rows). Roll back to version 1, which scored 80.0 in the same evaluation.",
        "The fall is most likely from 90.0 (95% interval 85.0 to 95.0, 200 rows) to 60.0 (95% interval 50.0 to 70.0, 60 "
        "rows); its evidence is 12,400, and 10,000 raise the alarm.",
    )


@pytest.mark.parametrize("changes", [{"previous_score": None}, {"alarmed_by": 300}, {"previous_score": 0.61}])
def test_a_previous_champion_not_known_to_be_worse_will_do(changes: dict[str, Any]) -> None:
    assert should_roll_back(replace(EARLY, **changes)) is not None


@pytest.mark.parametrize("changes", [{"previous": None}, {"alarmed_by": 301}, {"previous_score": 0.6}])
def test_otherwise_a_refresh_is_the_answer(changes: dict[str, Any]) -> None:
    assert should_roll_back(replace(EARLY, **changes)) is None


BETTER = Replay(0.6, 0.9, 0.3, Interval(0.2, 0.4), 1e-6, 60)
WORSE = Replay(0.6, 0.55, -0.05, Interval(-0.15, 0.05), 0.9, 60)


def test_the_previous_version_must_be_better_on_the_same_inputs() -> None:
    verdict = should_roll_back(replace(EARLY, replay=BETTER, previous_score=0.1))
    assert verdict is not None, "what it scored in the evaluation does not count then"
    assert (
        "Roll back to version 1, which is better on the same inputs: 90.0 against 60.0 of the champion on 60 rows, a "
        "difference of +30.0 points (95% interval 20.0 to 40.0, one-sided p 1e-06)." in verdict.reasons[0]
    )
    worse = replace(EARLY, replay=WORSE, previous_score=0.99)
    assert should_roll_back(worse) is None, "not even if it scored higher in the evaluation"
    why = why_no_rollback(worse)
    assert why is not None and why.startswith("Version 1 is not shown to be better on the same inputs, so the monitor")
    assert "`perpetune rollback`" in why
    unsure = replace(WORSE, difference=0.1, previous=0.7, p_value=0.06)
    assert should_roll_back(replace(EARLY, replay=unsure)) is None, "a difference that is not shown is none"


def test_a_version_that_cannot_be_asked_needs_a_known_score() -> None:
    silent = replace(EARLY, not_asked="no gateway runs")
    verdict = should_roll_back(silent)
    assert verdict is not None and "(it could not be asked the same inputs: no gateway runs)" in verdict.reasons[0]
    unknown = replace(silent, previous_score=None)
    assert should_roll_back(unknown) is None
    assert "could not be asked the same inputs, so the monitor does not roll back" in str(why_no_rollback(unknown))
    assert why_no_rollback(replace(unknown, alarmed_by=301)) is None, "it came too late for that"


def test_verdicts_say_when_labels_arrived_unasked() -> None:
    sentence = (
        "40 of the 60 labels arrived unasked: whoever sent them chose the answers, so the score may be biased; those of "
        "`perpetune labels` are drawn at random."
    )
    verdict = should_roll_back(replace(EARLY, unasked=40))
    assert verdict is not None and sentence in verdict.reasons
    on_trial = trial()
    assert sentence in should_release(replace(on_trial, feedback=60, unasked=40), RULES).reasons
    assert not any("unasked" in reason for reason in should_release(on_trial, RULES).reasons)


def test_a_manual_rollback_has_its_reason() -> None:
    verdict = manual_rollback(ManualRollback("wrong tone", "3", "2", 0.2))
    assert verdict.reasons == ("Rolled back from version 3 to version 2: wrong tone",)


def test_the_end_of_a_trial_says_what_its_few_labels_would_miss() -> None:
    """By simulation: a hundred labels on each side, and a challenger that is ten points worse."""
    few = Comparison(0.8, 0.85, -0.05, Interval(-0.3, 0.2), 100, 100)
    rng = np.random.default_rng(3)
    differences = rng.binomial(100, 0.75, 20_000) / 100 - rng.binomial(100, 0.85, 20_000) / 100
    assert missed_harm(few, 0.05) == pytest.approx(np.mean(differences >= -0.05), abs=0.04)
    many = replace(few, rows=2000, champion_rows=2000)
    assert missed_harm(many, 0.05) < 0.001


def test_so_does_the_end_of_a_trial_on_the_same_requests() -> None:
    """2,000 requests of which 400 are answered differently, 40 labels, and a challenger that is ten points worse."""
    few = replace(of_disagreements(-0.2, 40, 40), differing=400)
    rng = np.random.default_rng(3)
    differences = 0.2 * (2 * rng.binomial(40, 0.25, 20_000) / 40 - 1)
    assert missed_harm(few, 0.05) == pytest.approx(np.mean(differences >= -0.05), abs=0.02)

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.params import load_params
from perpetune.policy.promotion import PairedEvidence, PromotionEvidence, should_promote
from perpetune.policy.verdict import Interval

GATE = load_params(Path("params.yaml")).promote
RANK = {"reject": 0, "collect more labels": 1, "promote": 2}


def paired(difference: float, reach: float, p_value: float, rows: int = 400) -> PairedEvidence:
    return PairedEvidence(difference, Interval(difference - reach, difference + reach), p_value, rows)


BETTER, SAME, WORSE = paired(0.06, 0.03, 0.001), paired(0.0, 0.02, 0.5), paired(-0.1, 0.03, 0.999)
UNSURE = paired(-0.01, 0.05, 0.6)


@pytest.mark.parametrize(
    ("frozen", "recent", "against", "outcome"),
    [
        (SAME, BETTER, "champion", "promote"),
        (BETTER, SAME, "champion", "reject"),
        (UNSURE, BETTER, "champion", "reject"),
        (WORSE, BETTER, "champion", "reject"),
        (BETTER, None, "champion", "promote"),
        (SAME, None, "champion", "reject"),
        (BETTER, None, "base", "promote"),
        (SAME, BETTER, "base", "reject"),
        (BETTER, SAME, "base", "promote"),
        (BETTER, WORSE, "base", "reject"),
    ],
)
def test_the_gate_guards_the_frozen_holdout_and_wants_a_gain(frozen, recent, against, outcome):
    assert should_promote(PromotionEvidence(frozen, recent, against), GATE).outcome == outcome


def test_too_few_rows_ask_for_the_missing_labels():
    verdict = should_promote(PromotionEvidence(SAME, paired(0.2, 0.1, 0.001, rows=38), "champion"), GATE)
    assert verdict.outcome == "collect more labels"
    assert verdict.reasons == (
        "The recent holdout has 38 of the 50 rows that a verdict needs: collect 12 more labels.",
    )


def test_harm_rejects_although_other_labels_are_missing():
    verdict = should_promote(PromotionEvidence(WORSE, paired(0.2, 0.1, 0.001, rows=3), "champion"), GATE)
    assert verdict.outcome == "reject"


def test_reasons_carry_difference_interval_and_rows():
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion"), GATE)
    assert verdict.reasons[0] == (
        "On the recent holdout the challenger is better than the champion: the difference is +6.0 points "
        "(95% interval 3.0 to 9.0, 400 rows), one-sided p 0.001 below 0.05."
    )
    assert "not worse than the champion by 3.0 points on the frozen holdout" in verdict.rule


def test_an_interval_with_swapped_or_missing_ends_is_refused():
    for low, high in [(0.2, 0.1), (float("nan"), 0.1)]:
        with pytest.raises(ValueError, match="interval"):
            Interval(low, high)


shares = st.floats(-1, 1)
holdouts = st.builds(paired, shares, st.floats(0, 0.5), st.floats(0, 1), st.integers(0, 500))
promotions = st.builds(PromotionEvidence, holdouts, st.none() | holdouts, st.sampled_from(["champion", "base"]))


def worse(paired: PairedEvidence, shift: float, p_value: float, fewer: int) -> PairedEvidence:
    """The same evidence with more harm in it, or fewer rows behind it."""
    return PairedEvidence(
        paired.difference - shift,
        Interval(paired.interval.low - shift, paired.interval.high - shift),
        min(1.0, paired.p_value + p_value),
        max(0, paired.rows - fewer),
    )


@given(promotions, st.sampled_from(["frozen", "recent"]), st.floats(0, 0.5), st.floats(0, 1), st.integers(0, 500))
def test_more_harm_or_fewer_rows_never_promote(evidence, where, shift, p_value, fewer):
    frozen, recent = evidence.frozen, evidence.recent
    harmed = PromotionEvidence(
        worse(frozen, shift, p_value, fewer) if where == "frozen" else frozen,
        worse(recent, shift, p_value, fewer) if where == "recent" and recent else recent,
        evidence.against,
    )
    if should_promote(evidence, GATE).outcome != "promote":
        assert should_promote(harmed, GATE).outcome != "promote"


@given(promotions, st.floats(0, 0.5), st.floats(0, 1))
def test_with_the_same_rows_more_harm_never_ranks_higher(evidence, shift, p_value):
    harmed = PromotionEvidence(worse(evidence.frozen, shift, p_value, 0), evidence.recent, evidence.against)
    assert RANK[should_promote(harmed, GATE).outcome] <= RANK[should_promote(evidence, GATE).outcome]


@given(promotions, st.floats(0, 0.1), st.floats(0.001, 0.1), st.integers(0, 200))
def test_stricter_rules_never_promote(evidence, margin, alpha, rows):
    strict = GATE.model_copy(
        update={"margin": GATE.margin * margin, "alpha": GATE.alpha * alpha, "min_rows": GATE.min_rows + rows}
    )
    if should_promote(evidence, strict).outcome == "promote":
        assert should_promote(evidence, GATE).outcome == "promote"


@given(promotions)
def test_every_reason_is_one_sentence(promotion):
    verdict = should_promote(promotion, GATE)
    assert verdict.reasons
    for reason in (*verdict.reasons, verdict.rule):
        assert reason[0].isupper() or reason[0].isdigit()
        assert reason.endswith(".")
        assert ". " not in reason


def test_policy_needs_no_heavy_library():
    heavy = "{'torch', 'mlflow', 'evidently', 'pandas'}"
    code = f"import sys, perpetune.policy; sys.exit(', '.join({heavy} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""

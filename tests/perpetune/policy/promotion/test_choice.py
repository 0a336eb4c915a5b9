"""Who is to serve, from evidence made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from perpetune.params import load_params
from perpetune.policy.promotion.choice import choose
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence, Recall, Rival
from perpetune.policy.verdict import Interval

GATE = load_params(Path("params.yaml")).promote


def paired(difference: float, reach: float = 0.03, p_value: float = 0.001, rows: int = 330) -> PairedEvidence:
    return PairedEvidence(difference, Interval(difference - reach, difference + reach), p_value, rows, 0.1)


BETTER, SAME, WORSE = paired(0.5), paired(0.0, 0.02, 0.5), paired(-0.4, p_value=1.0)
FIRST = PromotionEvidence(BETTER, None, "base", untrained=True)
UNPROVEN = replace(FIRST, frozen=SAME)


def rival(lead: float, challenger: float = 0.9, gate: PairedEvidence | None = BETTER) -> Rival:
    tested = replace(FIRST, frozen=gate, subject="the linear model") if gate else None
    return Rival(challenger - lead, challenger, paired(lead), tested)


def test_the_linear_model_is_served_where_it_is_as_good() -> None:
    choice = choose(replace(FIRST, rivals={"linear": rival(-0.006, 0.982), "majority": rival(0.9, gate=None)}), GATE)
    assert (choice.system, choice.verdict.outcome) == ("linear", "promote")
    assert choice.verdict.reasons[0] == (
        "Serve the linear model: TF-IDF with logistic regression is right on 98.8% of 330 rows, the tuned model 98.2% "
        "(difference +0.6 points, 95% interval -2.4 to 3.6), so no language model is needed: it is not worse by 3.0 points (promote.margin)."
    )


def test_a_gain_that_is_not_shown_is_no_equality() -> None:
    """The linear model serves by its estimate; that no language model is needed takes a test, and labels would make it."""
    unsure = replace(rival(0.0, 0.45), lead=paired(0.0, 0.1, 0.5, 111))
    reason = choose(replace(FIRST, rivals={"linear": unsure}), GATE).verdict.reasons[0]
    assert "needed" not in reason
    assert reason.endswith("; the tuned model is not yet shown to be better, 1,116 more labels would tell.")
    told = replace(FIRST, rivals={"linear": unsure}, label_ratios={"frozen": 0.1, "recent": 0.4})
    assert "2,232 more labels would tell" in choose(told, GATE).verdict.reasons[0], "of which half are held out"


def test_a_larger_model_that_may_be_better_is_a_need() -> None:
    beaten = replace(rival(-0.006), models={"few-shot": paired(0.118, 0.13, 0.035, 111), "base": paired(-0.2)})
    reason = choose(replace(FIRST, rivals={"linear": beaten}), GATE).verdict.reasons[0]
    assert "needed" not in reason and "not yet shown" not in reason, "few-shot is shown to be better"
    unsure = replace(beaten, models={"few-shot": paired(0.118, 0.13, 0.07, 111)})
    reason = choose(replace(FIRST, rivals={"linear": unsure}), GATE).verdict.reasons[0]
    assert "; the base model with examples is not yet shown to be better, " in reason
    clear = replace(beaten, models={"few-shot": paired(-0.118, 0.03), "recorded": paired(-0.02)})
    assert "so no language model is needed" in choose(replace(FIRST, rivals={"linear": clear}), GATE).verdict.reasons[0]


@pytest.mark.parametrize(("linear", "system"), [(0.02, "embeddings"), (-0.015, "linear")])
def test_embeddings_are_served_if_they_are_worth_an_encoder(linear: float, system: str) -> None:
    rivals = {"linear": rival(linear), "embeddings": rival(-0.02)}
    choice = choose(replace(FIRST, rivals=rivals), GATE)
    assert choice.system == system
    if system == "embeddings":
        assert choice.verdict.reasons[0] == (
            "Serve the linear model on sentence embeddings: logistic regression on sentence embeddings is right on 92.0% of "
            "330 rows, the tuned model 90.0% (difference +2.0 points, 95% interval -1.0 to 5.0), so no language model is "
            "needed: it is not worse by 3.0 points (promote.margin)."
        )


@pytest.mark.parametrize(("lead", "system"), [(0.009, "linear"), (0.011, "challenger"), (0.3, "challenger")])
def test_a_simpler_model_within_a_point_is_preferred(lead: float, system: str) -> None:
    assert choose(replace(FIRST, rivals={"linear": rival(lead)}), GATE).system == system


def test_the_tuned_model_is_told_beside_its_best_rival() -> None:
    rivals = {"linear": rival(0.1), "few-shot": rival(0.05), "recorded": rival(-0.05, gate=None)}
    reasons = choose(replace(FIRST, rivals=rivals), GATE).verdict.reasons
    assert reasons[0].startswith(
        "Serve the tuned model: it is right on 90.0% of 330 rows; the base model with examples is the best rival with "
        "85.0% (difference +5.0 points"
    )
    assert reasons[-1].startswith("For comparison, the recorded model is right on 95.0% of 330 rows")


def test_the_simplest_of_rivals_that_are_as_good_is_served() -> None:
    rivals = {"linear": rival(-0.05), "base": rival(-0.055), "few-shot": rival(-0.2)}
    assert choose(replace(FIRST, rivals=rivals), GATE).system == "few-shot"
    assert choose(replace(FIRST, rivals={**rivals, "few-shot": rival(-0.059)}), GATE).system == "linear"


def test_a_rival_that_does_harm_is_never_served() -> None:
    harmful = rival(-0.05, gate=WORSE)
    choice = choose(replace(FIRST, rivals={"linear": harmful}), GATE)
    assert choice.system == "challenger"
    assert (
        "TF-IDF with logistic regression is at most 1.0 points behind on these rows but does harm"
        in choice.verdict.reasons[0]
    )


def test_a_recorded_model_cannot_be_served() -> None:
    assert choose(replace(FIRST, rivals={"recorded": rival(-0.1, gate=None)}), GATE).system == "challenger"


def test_the_rival_is_tested_where_the_first_challenger_fails() -> None:
    spam = Recall(1 / 11, Interval(0.002, 0.413), 11, None)
    vetoed = replace(FIRST, recalls={"spam": spam}, rivals={"linear": rival(-0.027, 0.865)})
    choice = choose(vetoed, GATE)
    assert choice.system == "linear"
    assert choice.verdict.reasons[0].startswith("Serve the linear model")
    assert choice.verdict.reasons[1].startswith("The tuned model was not promoted: The challenger finds 9.1%")


@pytest.mark.parametrize("serves", [{"untrained": True}, {"refitted": True}])
def test_it_is_tested_against_a_champion_that_was_not_tuned_and_left_alone_beside_one_that_was(
    serves: dict[str, Any],
) -> None:
    evidence = replace(UNPROVEN, against="champion", untrained=False, rivals={"linear": rival(-0.3)})
    assert choose(replace(evidence, **serves), GATE).system == "linear"
    kept = choose(evidence, GATE)
    assert (kept.system, kept.verdict.outcome) == (None, "reject")
    assert kept.verdict.reasons[0].endswith(
        "; TF-IDF with logistic regression is not worse than the tuned model by 3.0 points (120.0% against 90.0% on 330 "
        "rows)."
    )


@pytest.mark.parametrize(("gain", "system"), [(0.2, "few-shot"), (0.005, "base")])
def test_where_nothing_is_better_than_the_base_the_prompted_base_serves(gain: float, system: str) -> None:
    shown = rival(0.1, gate=paired(gain, 0.3, 0.4))
    choice = choose(replace(UNPROVEN, rivals={"base": rival(0.0, gate=None), "few-shot": shown}), GATE)
    assert (choice.system, choice.verdict.outcome) == (system, "promote")
    assert choice.verdict.reasons[0].startswith("Serve the ")
    assert "nothing is shown to be better" in choice.verdict.reasons[0]


def test_what_is_no_better_than_the_majority_answer_is_not_served() -> None:
    rivals = {"majority": rival(0.005, gate=None), "linear": rival(0.002), "base": rival(0.6, gate=None)}
    assert choose(replace(FIRST, rivals=rivals), GATE).system == "base"
    prompted = choose(replace(FIRST, against="champion", rivals=rivals), GATE)
    assert (prompted.system, prompted.verdict.outcome) == (None, "reject")
    assert prompted.verdict.reasons[0].startswith(
        "The tuned model is not more than 1 points (promote.simpler_margin) better"
    )
    tuned = choose(replace(FIRST, against="champion", untrained=False, rivals={"majority": rivals["majority"]}), GATE)
    assert tuned.system == "challenger", "what serves is held to no more than what it replaced"


def test_while_nothing_trained_serves_the_best_estimate_decides() -> None:
    """38 rows, 7.9 points: too few for any test, and a prompted base has no skill to lose."""
    unsure = replace(UNPROVEN, frozen=paired(0.079, 0.12, 0.125, 38), against="champion")
    tuned = choose(unsure, GATE)
    assert (tuned.system, tuned.verdict.outcome) == ("challenger", "promote")
    assert (
        "No trained version serves yet, so the best estimate decides: the tuned model is 7.9 points above"
        in " ".join(tuned.verdict.reasons)
    )
    linear = rival(0.0, gate=paired(0.079, 0.12, 0.125, 38))
    assert choose(replace(unsure, rivals={"linear": linear}), GATE).system == "linear", "the simpler of two as good"
    assert choose(replace(unsure, untrained=False), GATE).system is None, "a trained champion is not left to estimates"
    assert choose(replace(unsure, frozen=paired(0.079, 0.12, 0.125, 15)), GATE).system is None, "15 rows say nothing"
    assert choose(replace(unsure, frozen=paired(0.008, 0.12, 0.4, 38)), GATE).system is None, "within a point"


@pytest.mark.parametrize("lead", [-0.2, 0.0, 0.005, 0.2])
@pytest.mark.parametrize("frozen", [BETTER, SAME, WORSE])
@pytest.mark.parametrize("against", ["base", "champion"])
def test_reasons_are_sentences_and_nothing_is_promoted_without_a_name(
    lead: float, frozen: PairedEvidence, against: Literal["base", "champion"]
) -> None:
    evidence = replace(FIRST, frozen=frozen, against=against, rivals={"linear": rival(lead), "base": rival(0.4)})
    choice = choose(evidence, GATE)
    assert (choice.system is None) == (choice.verdict.outcome != "promote")
    for reason in choice.verdict.reasons:
        assert reason[0].isupper() and reason.endswith(".") and ". " not in reason

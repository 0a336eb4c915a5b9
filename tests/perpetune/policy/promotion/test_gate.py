from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.params import load_params
from perpetune.policy.promotion.evidence import (
    Anchor,
    HoldoutUse,
    Limit,
    MistakeCostEvidence,
    PairedEvidence,
    PromotionEvidence,
    Recall,
)
from perpetune.policy.promotion.gate import should_promote
from perpetune.policy.promotion.rules import rules_for_costs
from perpetune.policy.verdict import Interval
from perpetune.statistics.non_inferiority import inferiority_p_value
from perpetune.statistics.paired import compare

GATE = load_params(Path("params.yaml")).promote
RANK = {"reject": 0, "collect more labels": 1, "promote": 2}


def paired(
    difference: float, reach: float, p_value: float, rows: int = 400, discordance: float = 0.1, p_worse: float = 1.0
) -> PairedEvidence:
    interval = Interval(difference - reach, difference + reach)
    return PairedEvidence(difference, interval, p_value, rows, discordance, p_worse)


def limit(value: float) -> Limit:
    return Limit(value, Interval(value - 0.05, value + 0.05), 0.15, 64, "nats a token")


BETTER, SAME, WORSE = paired(0.06, 0.03, 0.001), paired(0.0, 0.02, 0.5), paired(-0.1, 0.03, 0.999)
UNSURE = paired(-0.01, 0.05, 0.6)


@pytest.mark.parametrize(
    ("frozen", "recent", "against", "outcome"),
    [
        (SAME, BETTER, "champion", "promote"),
        (BETTER, SAME, "champion", "reject"),
        (UNSURE, BETTER, "champion", "collect more labels"),
        (replace(UNSURE, rows=1300), BETTER, "champion", "reject"),
        (WORSE, BETTER, "champion", "reject"),
        (BETTER, None, "champion", "promote"),
        (SAME, None, "champion", "reject"),
        (BETTER, None, "base", "promote"),
        (SAME, BETTER, "base", "reject"),
        (BETTER, SAME, "base", "promote"),
        (BETTER, WORSE, "base", "reject"),
    ],
)
def test_the_gate_guards_the_frozen_holdout_and_wants_a_gain(
    frozen: PairedEvidence, recent: PairedEvidence | None, against: Literal["champion", "base"], outcome: str
) -> None:
    assert should_promote(PromotionEvidence(frozen, recent, against), GATE).outcome == outcome


def test_too_few_rows_ask_for_the_missing_labels() -> None:
    verdict = should_promote(PromotionEvidence(SAME, paired(0.2, 0.1, 0.001, rows=38), "champion"), GATE)
    assert verdict.outcome == "collect more labels"
    assert verdict.reasons[0] == (
        "The recent holdout has 38 of the 50 rows that a verdict needs: collect 12 more labels."
    )


def test_twenty_rows_are_enough_where_nothing_trained_serves() -> None:
    sure = paired(0.5, 0.2, 0.001, rows=25)
    assert should_promote(PromotionEvidence(sure, None, "champion"), GATE).outcome == "collect more labels"
    assert should_promote(PromotionEvidence(sure, None, "champion", untrained=True), GATE).outcome == "promote"
    few = PromotionEvidence(replace(sure, rows=19), None, "base", untrained=True)
    assert should_promote(few, GATE).reasons[0].startswith("The frozen holdout has 19 of the 20 rows")


def test_rows_that_are_all_alike_show_that_nothing_was_lost() -> None:
    alike = paired(0.0, 0.05, 1.0, rows=122, discordance=0.0)  # 1 - 0.025 ** (1 / 122) is 2.98%, the margin 3%
    assert should_promote(PromotionEvidence(alike, BETTER, "champion"), GATE).outcome == "promote"
    verdict = should_promote(PromotionEvidence(replace(alike, rows=91), BETTER, "champion"), GATE)
    assert verdict.outcome == "collect more labels"
    assert verdict.reasons[0] == (
        "Both give the same answers on the 91 rows of the frozen holdout, but may differ on up to 4.0% of all rows: collect 31 "
        "more labels."
    )
    assert should_promote(PromotionEvidence(replace(alike, rows=121), BETTER, "champion"), GATE).outcome != "promote"


def test_rows_that_would_miss_a_gain_ask_for_more_until_they_would_not() -> None:
    unshown = paired(0.02, 0.04, 0.2, rows=200)  # up to 6 points: a gain of 5 may be there
    verdict = should_promote(PromotionEvidence(SAME, unshown, "champion"), GATE)
    assert verdict.outcome == "collect more labels"
    assert verdict.reasons[0] == (
        "The 200 rows of the recent holdout would miss a true gain of 5.0 points with a chance of 35% at the "
        "observed discordance of 0.10: collect 178 more labels."
    )
    with_them = PromotionEvidence(SAME, replace(unshown, rows=378), "champion")
    assert should_promote(with_them, GATE).outcome == "reject"


def test_a_frozen_holdout_too_small_to_clear_an_equal_challenger_asks_too() -> None:
    verdict = should_promote(PromotionEvidence(paired(0.0, 0.04, 0.5, rows=500), BETTER, "champion"), GATE)
    assert verdict.outcome == "collect more labels"
    assert verdict.reasons[0] == (
        "The 500 rows of the frozen holdout would miss a challenger that is as good with a chance of 49% at the "
        "observed discordance of 0.10: collect 727 more labels."
    )


def test_a_gain_that_is_ruled_out_rejects_however_few_the_rows() -> None:
    ruled_out = paired(-0.02, 0.06, 0.8, rows=100)
    assert should_promote(PromotionEvidence(SAME, ruled_out, "champion"), GATE).outcome == "reject"


def test_a_gain_that_is_not_there_is_no_reason_to_ask_for_frozen_labels() -> None:
    verdict = should_promote(PromotionEvidence(paired(0.0, 0.04, 0.5, rows=500), SAME, "champion"), GATE)
    assert verdict.outcome == "reject"
    assert verdict.reasons[0].startswith("On the recent holdout the challenger is not shown to be better")


def test_without_a_margin_the_guard_asks_for_the_rows_that_show_a_gain() -> None:
    rules = GATE.model_copy(update={"margin": 0.0})
    evidence = PromotionEvidence(paired(0.0, 0.04, 0.5, rows=100), BETTER, "champion")
    assert "a challenger that is better by 5.0 points with" in should_promote(evidence, rules).reasons[0]


def test_harm_rejects_although_other_labels_are_missing() -> None:
    verdict = should_promote(PromotionEvidence(WORSE, paired(0.2, 0.1, 0.001, rows=3), "champion"), GATE)
    assert verdict.outcome == "reject"


def test_a_slice_that_is_much_worse_vetoes() -> None:
    harmed = paired(-0.3, 0.1, 0.999, rows=60, p_worse=0.001)
    evidence = PromotionEvidence(SAME, BETTER, "champion", {"label mixed": harmed, "label positive": SAME})
    verdict = should_promote(evidence, GATE)
    assert verdict.outcome == "reject"
    assert verdict.reasons[0] == (
        "On label mixed the challenger is worse than the champion by more than 10.0 points (promote.slice_margin): the "
        "difference is -30.0 points (95% interval -40.0 to -20.0, 60 rows), one-sided p 0.002 after Holm's correction "
        "over 2 slices below 0.05."
    )
    assert verdict.reasons[1].startswith("On the recent holdout the challenger is better"), "the gain is told too"


def test_one_low_p_value_among_many_slices_is_chance() -> None:
    harmed = paired(-0.2, 0.15, 0.98, rows=30, p_worse=0.02)
    many = {f"label {number}": SAME for number in range(9)} | {"label ten": harmed}
    assert should_promote(PromotionEvidence(SAME, BETTER, "champion", {"label ten": harmed}), GATE).outcome == "reject"
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", many), GATE)
    assert verdict.outcome == "promote"
    assert "the lowest difference, on label ten, is -20.0 points" in verdict.reasons[2]


def test_holm_steps_down_from_the_smallest_p_value() -> None:
    slices = {"label a": paired(-0.3, 0.1, 1, p_worse=0.01), "label b": paired(-0.3, 0.1, 1, p_worse=0.03)}
    reasons = should_promote(PromotionEvidence(SAME, BETTER, "champion", slices), GATE).reasons
    assert [reason.split("one-sided ")[1].split(" after")[0] for reason in reasons[:2]] == ["p 0.02", "p 0.03"]


@pytest.mark.parametrize("value", [0.2, math.nan])
def test_a_count_beyond_its_limit_vetoes(value: float) -> None:
    found = Limit(value, None, 0.15, 64, "nats a token")
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", limits={"forgetting": found}), GATE)
    assert verdict.outcome == "reject"
    assert verdict.reasons[0] == f"Forgetting is {value:.3g} nats a token (64 rows), beyond the limit of 0.15."


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.15, "Forgetting is 0.15 nats a token (95% interval 0.1 to 0.2, 64 rows), within the limit of 0.15."),
        (
            0.18,
            "Forgetting is 0.18 nats a token (95% interval 0.13 to 0.23, 64 rows), not shown to be beyond the limit "
            "of 0.15.",
        ),
    ],
)
def test_limits_that_are_kept_are_told(value: float, told: str) -> None:
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", limits={"forgetting": limit(value)}), GATE)
    assert verdict.outcome == "promote"
    assert verdict.reasons[-1] == told


def test_a_limit_that_is_shown_to_be_exceeded_vetoes() -> None:
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", limits={"forgetting": limit(0.21)}), GATE)
    assert verdict.reasons[0] == (
        "Forgetting is 0.21 nats a token (95% interval 0.16 to 0.26, 64 rows), beyond the limit of 0.15."
    )


def test_what_has_no_limit_is_told_with_its_setting_and_vetoes_nothing() -> None:
    found = Limit(1.1, Interval(1.0, 1.2), None, 46, "nats a token", "promote.max_forgetting")
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", limits={"forgetting": found}), GATE)
    assert verdict.outcome == "promote"
    assert verdict.reasons[-1] == (
        "Forgetting is 1.1 nats a token (95% interval 1 to 1.2, 46 rows), without a limit (promote.max_forgetting "
        "is not set)."
    )
    beyond = replace(found, limit=0.5)
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", limits={"forgetting": beyond}), GATE)
    assert verdict.reasons[0].endswith("beyond the limit of 0.5 (promote.max_forgetting).")


def test_all_harm_is_told_and_the_gain_beside_it() -> None:
    limits = {"latency": Limit(2.0, Interval(1.8, 2.2), 1.5, 30, "times", "promote.max_slowdown"), "cost": limit(0.3)}
    slices = {"label mixed": paired(-0.3, 0.1, 0.999, rows=60, p_worse=0.001)}
    reasons = should_promote(PromotionEvidence(WORSE, BETTER, "champion", slices, limits), GATE).reasons
    told = ["On the frozen holdout", "On label mixed", "Latency is", "Cost is", "On the frozen", "On the recent"]
    assert [reason.startswith(start) for reason, start in zip(reasons, told, strict=True)] == [True] * 6


def test_a_slice_too_small_to_be_tested_is_named() -> None:
    small = {"label spam": 11, "source film": 1}
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", small=small), GATE)
    assert verdict.outcome == "promote"
    assert verdict.reasons[-1] == (
        "Not tested, because they have fewer than 20 rows (promote.slice_rows): source film (1 row), label spam (11 rows)."
    )


def test_a_label_that_is_hardly_found_vetoes_unless_what_serves_finds_no_more() -> None:
    spam = Recall(1 / 11, Interval(0.002, 0.413), 11, None)
    found = PromotionEvidence(SAME, BETTER, "champion", recalls={"spam": spam})
    verdict = should_promote(found, GATE)
    assert verdict.outcome == "reject"
    assert verdict.reasons[0] == (
        "The challenger finds 9.1% of the 11 rows labelled spam (95% interval 0.2 to 41.3), below the floor of 50% "
        "(promote.min_recall)."
    )
    as_bad = replace(found, recalls={"spam": replace(spam, serving=1 / 11)})
    assert should_promote(as_bad, GATE).outcome == "promote"
    assert should_promote(found, GATE.model_copy(update={"min_recall": None})).outcome == "promote"


def test_the_gain_is_the_balanced_one_where_labels_are_rare() -> None:
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion", balanced=SAME), GATE)
    assert verdict.outcome == "reject"
    assert "the challenger, each label counting alike, is not shown to be better" in verdict.reasons[0]
    assert should_promote(PromotionEvidence(SAME, SAME, "champion", balanced=BETTER), GATE).outcome == "promote"


def test_reasons_carry_difference_interval_and_rows() -> None:
    verdict = should_promote(PromotionEvidence(SAME, BETTER, "champion"), GATE)
    assert verdict.reasons[0] == (
        "On the recent holdout the challenger is better than the champion: the difference is +6.0 points "
        "(95% interval 3.0 to 9.0, 400 rows), one-sided p 0.001 below 0.05."
    )
    assert "not worse than the champion by 3.0 points on the frozen holdout" in verdict.rule


shares = st.floats(-1, 1)
chances = st.floats(0, 1)
held_out = st.builds(paired, shares, st.floats(0, 0.5), chances, st.integers(0, 900), chances, chances)
promotions = st.builds(
    PromotionEvidence,
    held_out,
    st.none() | held_out,
    st.sampled_from(["champion", "base"]),
    st.dictionaries(st.sampled_from(["label good", "label bad", "source shop", "source film"]), held_out),
    st.dictionaries(st.sampled_from(["forgetting", "latency", "cost"]), st.builds(limit, st.floats(0, 0.3))),
)
passing = st.builds(
    PromotionEvidence,
    st.builds(paired, st.floats(0, 0.1), st.floats(0, 0.02), chances, st.integers(60, 900), chances, chances),
    st.builds(paired, st.floats(0.01, 0.2), st.floats(0, 0.02), st.floats(0, 0.04), st.integers(60, 900), chances),
    st.just("champion"),
    st.dictionaries(st.sampled_from(["label good", "label bad"]), held_out),
    st.dictionaries(st.sampled_from(["forgetting", "cost"]), st.builds(limit, st.floats(0, 0.15))),
)


def worse(paired: PairedEvidence, shift: float, p_value: float, fewer: int) -> PairedEvidence:
    """The same evidence with more harm in it, or fewer rows behind it."""
    return replace(
        paired,
        difference=paired.difference - shift,
        interval=Interval(paired.interval.low - shift, paired.interval.high - shift),
        p_value=min(1.0, paired.p_value + p_value),
        rows=max(0, paired.rows - fewer),
        p_worse=max(0.0, paired.p_worse - p_value),
    )


@given(promotions | passing, st.data(), st.floats(0, 0.5), chances)
def test_more_harm_anywhere_never_ranks_higher(
    evidence: PromotionEvidence, data: st.DataObject, shift: float, p_value: float
) -> None:
    positions = ["frozen", *(["recent"] if evidence.recent else []), *evidence.slices, *evidence.limits]
    position = data.draw(st.sampled_from(positions))
    if position in ("frozen", "recent"):
        harmed = replace(evidence, **{position: worse(getattr(evidence, position), shift, p_value, 0)})  # type: ignore[arg-type]
    elif position in evidence.slices:
        slices = {**evidence.slices, position: worse(evidence.slices[position], shift, p_value, 0)}
        harmed = replace(evidence, slices=slices)
    else:
        grown = limit(evidence.limits[position].value + shift)
        harmed = replace(evidence, limits={**evidence.limits, position: grown})
    assert RANK[should_promote(harmed, GATE).outcome] <= RANK[should_promote(evidence, GATE).outcome]


@given(promotions | passing, st.integers(0, 500), st.integers(0, 500))
def test_fewer_rows_never_promote(evidence: PromotionEvidence, fewer: int, recently: int) -> None:
    fewer_rows = replace(
        evidence,
        frozen=worse(evidence.frozen, 0, 0, fewer),
        recent=evidence.recent and worse(evidence.recent, 0, 0, recently),
    )
    if should_promote(evidence, GATE).outcome != "promote":
        assert should_promote(fewer_rows, GATE).outcome != "promote"


@given(promotions | passing, st.just(0) | st.floats(0.01, 1), st.integers(0, 200), st.floats(0.01, 0.3), chances)
def test_stricter_rules_never_promote(
    evidence: PromotionEvidence, margin: float, rows: int, gain: float, power: float
) -> None:
    strict = GATE.model_copy(
        update={
            "margin": GATE.margin * margin,
            "min_rows": GATE.min_rows + rows,
            "gain": gain,
            "power": 0.01 + 0.98 * power,
        }
    )
    if should_promote(evidence, strict).outcome == "promote":
        assert should_promote(evidence, GATE).outcome == "promote"


@given(promotions | passing, st.floats(0.001, 1))
def test_a_smaller_alpha_never_promotes_where_no_slice_is_looked_at(evidence: PromotionEvidence, alpha: float) -> None:
    whole = replace(evidence, slices={})
    if should_promote(whole, GATE.model_copy(update={"alpha": GATE.alpha * alpha})).outcome == "promote":
        assert should_promote(whole, GATE).outcome == "promote"


@given(promotions | passing)
def test_what_is_asked_for_is_said_and_never_for_nothing(evidence: PromotionEvidence) -> None:
    verdict = should_promote(evidence, GATE)
    if verdict.outcome == "collect more labels":
        asked = verdict.reasons[0].rpartition("collect ")[2].partition(" more labels")[0]
        assert int(asked) > 0


@given(promotions | passing)
def test_every_reason_is_one_sentence(evidence: PromotionEvidence) -> None:
    verdict = should_promote(evidence, GATE)
    assert verdict.reasons
    for reason in (*verdict.reasons, verdict.rule):
        assert reason[0].isupper() or reason[0].isdigit()
        assert reason.endswith(".")
        assert ". " not in reason


Judged = tuple[tuple[bool, bool], str]  # whether the other and the challenger are right, and the label

pairs = st.sampled_from([*[(True, True)] * 6, *[(False, True)] * 2, (True, False)])
answers = st.lists(st.tuples(pairs, st.sampled_from(["good", "bad"])), min_size=60, max_size=120)


def judged(rows: list[Judged]) -> PairedEvidence:
    theirs, ours = ([float(pair[side]) for pair, _ in rows] for side in (0, 1))
    found = compare(theirs, ours, confidence=0.95, samples=200, seed=3)
    return PairedEvidence(
        found.difference,
        Interval(found.low, found.high),
        found.p_value,
        found.n,
        found.discordance,
        inferiority_p_value(GATE.slice_margin, theirs, ours),
    )


def evidence_of(frozen: list[Judged], recent: list[Judged]) -> PromotionEvidence:
    labels = sorted({label for _, label in [*frozen, *recent]})
    slices = {f"label {label}": judged([row for row in [*frozen, *recent] if row[1] == label]) for label in labels}
    return PromotionEvidence(judged(frozen), judged(recent), "champion", slices)


@settings(max_examples=25, deadline=None)
@given(answers, answers, st.randoms())
def test_the_verdict_does_not_depend_on_the_order_of_rows(
    frozen: list[Judged], recent: list[Judged], shuffler: random.Random
) -> None:
    shuffled = evidence_of(shuffler.sample(frozen, len(frozen)), shuffler.sample(recent, len(recent)))
    assert should_promote(shuffled, GATE) == should_promote(evidence_of(frozen, recent), GATE)


@settings(max_examples=25, deadline=None)
@given(answers, answers, st.data())
def test_a_right_answer_that_turns_wrong_never_promotes(
    frozen: list[Judged], recent: list[Judged], data: st.DataObject
) -> None:
    right = [position for position, ((_, ours), _) in enumerate(recent) if ours]
    for position in data.draw(st.lists(st.sampled_from(right), min_size=1, max_size=9, unique=True)) if right else []:
        before = should_promote(evidence_of(frozen, recent), GATE).outcome
        (theirs, _), label = recent[position]
        recent = [*recent[:position], ((theirs, False), label), *recent[position + 1 :]]
        assert should_promote(evidence_of(frozen, recent), GATE).outcome != "promote" or before == "promote"


def test_a_verdict_says_how_many_labels_of_the_recent_holdout_arrived_unasked() -> None:
    recent = PairedEvidence(0.1, Interval(0.05, 0.15), 0.001, 200)
    evidence = PromotionEvidence(recent, recent, "champion", unasked=150)
    reasons = should_promote(evidence, GATE).reasons
    assert reasons[-1].startswith("150 of the 200 labels arrived unasked: whoever sent them chose the answers")
    assert "unasked" not in " ".join(should_promote(replace(evidence, unasked=0), GATE).reasons)


def test_small_losses_in_a_row_are_seen_against_the_best_version_that_ever_served() -> None:
    """Better than the champion on recent traffic and equal on frozen, but two points below the anchor."""
    good = PairedEvidence(0.05, Interval(0.02, 0.08), 0.001, 1500, 0.1)
    equal = PairedEvidence(0.0, Interval(-0.016, 0.016), 0.5, 1500, 0.1)
    evidence = PromotionEvidence(equal, good, "champion")
    assert should_promote(evidence, GATE).outcome == "promote"
    for lost, outcome in ((0.02, "reject"), (0.01, "promote")):
        anchor = Anchor("3", replace(equal, difference=-lost, interval=Interval(-lost - 0.02, 0.0)))
        verdict = should_promote(replace(evidence, anchor=anchor), GATE)
        assert verdict.outcome == outcome
    assert (
        "below version 3, the best that ever served"
        in should_promote(replace(evidence, anchor=Anchor("3", replace(equal, difference=-0.02))), GATE).reasons[0]
    )


def used(verdicts: float, rows: int = 500, fresh: int = 0) -> dict[str, HoldoutUse]:
    return {"recent": HoldoutUse(verdicts, rows, fresh), "frozen": HoldoutUse(verdicts, rows, fresh)}


def test_rows_that_decided_before_need_a_smaller_p_value() -> None:
    equal = PairedEvidence(0.0, Interval(-0.02, 0.02), 0.5, 500, 0.1)
    good = PairedEvidence(0.03, Interval(0.005, 0.055), 0.02, 500, 0.1)
    evidence = PromotionEvidence(equal, good, "champion")
    verdict = should_promote(replace(evidence, uses=used(1)), GATE)
    assert verdict.outcome == "promote" and "one-sided p below 0.025" in verdict.rule
    verdict = should_promote(replace(evidence, uses=used(4)), GATE)
    assert verdict.outcome != "promote"
    assert (
        "The recent holdout decided before: 500 rows, on average in 4 earlier verdicts; 0 are new; the test of a gain on the "
        "recent one is at 0.01 instead of 0.05."
    ) in verdict.reasons
    assert not any("decided before" in reason for reason in should_promote(evidence, GATE).reasons)


def test_a_small_holdout_cannot_show_that_the_anchor_was_kept_and_asks_for_rows() -> None:
    good = PairedEvidence(0.05, Interval(0.02, 0.08), 0.001, 500, 0.1)
    equal = PairedEvidence(0.0, Interval(-0.016, 0.016), 0.5, 1500, 0.1)
    near = PairedEvidence(0.0, Interval(-0.045, 0.045), 0.5, 200, 0.1)
    evidence = PromotionEvidence(equal, good, "champion", anchor=Anchor("3", near), label_ratios={"frozen": 0.5})
    assert should_promote(evidence, GATE).outcome == "promote"
    verdict = should_promote(replace(evidence, uses=used(10)), GATE)
    assert verdict.outcome == "collect more labels"
    assert (
        "a challenger that is as good as version 3" in verdict.reasons[0]
        and "of which 50% join it" in verdict.reasons[0]
    )
    many = replace(near, rows=2000, difference=-0.012)
    assert should_promote(replace(evidence, anchor=Anchor("3", many), uses=used(10)), GATE).outcome == "promote"


def test_without_a_difference_the_anchor_is_kept() -> None:
    good = PairedEvidence(0.05, Interval(0.02, 0.08), 0.001, 500, 0.1)
    equal = PairedEvidence(0.0, Interval(-0.016, 0.016), 0.5, 1500, 0.1)
    same = PairedEvidence(0.0, Interval(-0.001, 0.001), 1.0, 1500, 0.0)
    evidence = PromotionEvidence(equal, good, "champion", anchor=Anchor("3", same), uses=used(50))
    assert should_promote(evidence, GATE.model_copy(update={"alpha": 0.6})).outcome == "promote"


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (HoldoutUse(0.0, 1200, 1200), "all 1,200 rows are new"),
        (HoldoutUse(1.0, 50, 0), "50 rows, on average in 1 earlier verdict; 0 are new"),
        (HoldoutUse(2.345, 500, 40), "500 rows, on average in 2.3 earlier verdicts; 40 are new"),
        (HoldoutUse(104.3, 500, 40), "500 rows, on average in 100 earlier verdicts; 40 are new"),
    ],
)
def test_the_use_of_a_holdout_in_words(use: HoldoutUse, said: str) -> None:
    assert str(use) == said


def test_with_costs_a_loss_may_at_most_double_the_cost() -> None:
    """The champion's mistakes cost 0.4% of the largest cost, and the margin of three points would allow eight times that."""
    equal = PairedEvidence(0.0, Interval(-0.002, 0.002), 0.5, 2000, 0.001, other=0.996)
    good = PairedEvidence(0.003, Interval(0.001, 0.005), 0.001, 2000, 0.001, other=0.996)
    evidence = PromotionEvidence(equal, good, "champion", mistake_costs=MistakeCostEvidence(0.2, 0.2, 50.0))
    assert rules_for_costs(evidence, GATE).margin == pytest.approx(0.004)
    assert should_promote(evidence, GATE).outcome == "promote"
    worse = replace(equal, difference=-0.006, interval=Interval(-0.008, -0.0045))
    assert should_promote(replace(evidence, frozen=worse), GATE).outcome == "reject"
    assert should_promote(replace(evidence, frozen=worse, mistake_costs=None), GATE).outcome == "promote"


HARDLY = paired(0.01, 0.04, 0.35, rows=250)
LITTLE_LOST = paired(-0.005, 0.04, 0.6, rows=200)


def test_after_decay_the_likelier_better_one_serves() -> None:
    evidence = PromotionEvidence(LITTLE_LOST, HARDLY, "champion")
    assert should_promote(evidence, GATE).outcome != "promote"
    verdict = should_promote(replace(evidence, after_decay=True), GATE)
    assert verdict.outcome == "promote"
    assert any(
        "The refresh is for decay, so that the likelier better one serves" in reason for reason in verdict.reasons
    )
    assert "because the refresh is for decay" in verdict.rule
    as_ever = GATE.model_copy(update={"alpha_after_decay": 0.0})
    assert should_promote(replace(evidence, after_decay=True), as_ever) == should_promote(evidence, as_ever)


@pytest.mark.parametrize(
    ("frozen", "recent"),
    [
        (LITTLE_LOST, paired(-0.01, 0.04, 0.7, rows=250)),  # not better
        (paired(-0.035, 0.04, 0.9, rows=200), paired(0.05, 0.06, 0.1, rows=250)),  # beyond the margin
        (paired(-0.02, 0.04, 0.8, rows=200), HARDLY),  # loses more than it gains
        (paired(-0.1, 0.03, 0.999), BETTER),  # harm
        (BETTER, paired(0.2, 0.1, 0.001, rows=38)),  # too few rows
    ],
)
def test_after_decay_what_is_not_likelier_better_does_not_serve(frozen: PairedEvidence, recent: PairedEvidence) -> None:
    assert should_promote(PromotionEvidence(frozen, recent, "champion", after_decay=True), GATE).outcome != "promote"


def test_after_decay_a_harmed_slice_vetoes_and_rows_that_decided_before_do_not() -> None:
    evidence = PromotionEvidence(LITTLE_LOST, HARDLY, "champion", after_decay=True)
    assert should_promote(replace(evidence, uses=used(3, rows=250)), GATE).outcome == "promote"
    harmed = {"label a": paired(-0.3, 0.1, 1.0, rows=60, p_worse=0.001)}
    assert should_promote(replace(evidence, slices=harmed), GATE).outcome == "reject"


def test_after_decay_the_mean_of_both_has_the_level_of_the_gain_that_the_rule_names() -> None:
    """At 0.01, below `promote.alpha`, the gain is tested at 0.05 as ever; so is the mean, whose p is 0.02 here."""
    strict = GATE.model_copy(update={"alpha_after_decay": 0.01})
    frozen, recent = paired(-0.005, 0.04, 0.6, rows=400), paired(0.05, 0.06, 0.001, rows=400)
    verdict = should_promote(PromotionEvidence(frozen, recent, "champion", after_decay=True), strict)
    assert verdict.outcome == "promote" and "p below 0.05" in verdict.rule and "at that level" in verdict.rule


@pytest.mark.parametrize("changes", [{"recent": None}, {"against": "base"}])
def test_only_a_champion_judged_on_recent_traffic_loses_its_claim(changes: dict[str, str | None]) -> None:
    evidence = replace(PromotionEvidence(LITTLE_LOST, HARDLY, "champion"), **changes)  # type: ignore[arg-type]
    assert should_promote(replace(evidence, after_decay=True), GATE) == should_promote(evidence, GATE)

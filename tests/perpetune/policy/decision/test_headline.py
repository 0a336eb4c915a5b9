"""Every verdict is one line that begins with the outcome, whatever its record holds or lacks."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from perpetune.params import load_params
from perpetune.policy.approval import ApprovalEvidence, approved
from perpetune.policy.decision.headline import finds_decay, headline
from perpetune.policy.decision.next_step import next_step, next_steps
from perpetune.policy.decision.record import Decision, Evidence, Ids, record
from perpetune.policy.estimated_accuracy import EstimatedFall
from perpetune.policy.first_refresh import FirstRefreshEvidence, should_tune_first_version
from perpetune.policy.label_requests import decide_without_labels
from perpetune.policy.promotion.choice import choose
from perpetune.policy.promotion.evidence import Limit, PairedEvidence, PromotionEvidence, Recall, Rival
from perpetune.policy.retraining import Decay, DriftEvidence, MixShift, RetrainEvidence, should_retrain
from perpetune.policy.rollout import (
    Comparison,
    ManualPromotion,
    ManualRollback,
    RollbackEvidence,
    TrialEvidence,
    manual_promotion,
    manual_rollback,
    should_release,
    should_roll_back,
)
from perpetune.policy.verdict import Interval, Outcome, Score, Verdict
from perpetune.policy.wording import WIDTH

PARAMS = load_params(Path(__file__).parents[4] / "params.yaml")
GATE = PARAMS.promote.model_copy(update={"min_rows": 50, "max_slowdown": 1.5, "min_recall": 0.5})
WATCH = PARAMS.watch.model_copy(update={"consecutive_checks": 2, "run_length": 10_000})
REFRESH = PARAMS.refresh.model_copy(
    update={"new_labels": 100, "cooldown_minutes": 60, "gpu_hours_per_month": 3, "first_labels": 200}
)
RELEASE = PARAMS.release.model_copy(update={"margin": 0.03, "min_labels": 100, "max_requests": 1000})


def decided(verdict: Verdict, evidence: Evidence, system: str | None = None, version: str = "4") -> Decision:
    time = datetime(2026, 1, 2, tzinfo=UTC)
    return record(verdict, evidence, task="tickets", time=time, ids=Ids(model_version=version), system=system)


def decay(mean: float, low: float, high: float, evidence: float, bound: float = 0.814) -> Decay:
    return Decay(
        window=Score(mean, Interval(low, high), 100),
        reference=Score(0.9, Interval(0.87, 0.93), 600),
        since_release=Score(mean, Interval(0.5, 0.9), 420),
        drop=0.9 - mean,
        interval=Interval(0.1, 0.3),
        margin=0.05,
        bound=bound,
        evidence=evidence,
        run_length=10_000,
        labels_since_fall=60,
    )


EARLY = replace(decay(0.46, 0.366, 0.557, 2000), early=1000.0)
MIXED = replace(decay(0.46, 0.366, 0.557, 2e12), mix=MixShift("label", 0.02, 0.09, "mixed", 90.0))
HEALTHY, DECAYED = decay(0.87, 0.79, 0.92, 39), decay(0.46, 0.366, 0.557, 2e12)
SEEN = RetrainEvidence(
    labelled=100,
    labelled_in_all=420,
    decay=HEALTHY,
    alarms_in_a_row=2,
    drift=None,
    minutes_since_refresh=None,
    unsuccessful_refreshes=0,
    device_hours=0.0,
    metric="accuracy",
)
DRIFT = DriftEvidence(True, 80, 600, 1.0, True, True, {})
FALL = EstimatedFall(
    Score(0.54, Interval(0.533, 0.546, 0.98), 80),
    Score(0.94, Interval(0.933, 0.946, 0.98), 80),
    0.4,
    Interval(0.39, 0.41, 0.98),
    0.05,
    0.0001,
    "z",
)


def checked(**changes: Any) -> Decision:
    evidence = replace(SEEN, **changes)
    verdict = decide_without_labels(should_retrain(evidence, WATCH, REFRESH), evidence, WATCH, REFRESH)
    return decided(verdict, evidence)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "keep: 87.0% right (79 to 92, n=100), threshold 81.4, evidence 39 of 10,000"),
        ({"unasked": 80}, "keep: 87.0% right (79 to 92, n=100), threshold 81.4, evidence 39 of 10,000, 80 labels arrived unasked"),
        ({"unasked": 20}, "keep: 87.0% right (79 to 92, n=100), threshold 81.4, evidence 39 of 10,000"),
        ({"metric": "slot_f1"}, "keep: slot f1 87.0 (79 to 92, n=100), threshold 81.4, evidence 39 of 10,000"),
        ({"metric": ""}, "keep: score 87.0 (79 to 92, n=100), threshold 81.4, evidence 39 of 10,000"),
        ({"decay": decay(0.87, 0.862, 0.878, 1.24)}, "keep: 87.0% right (86.2 to 87.8, n=100), threshold 81.4, evidence 1.2 of 10,000"),
        ({"decay": decay(0.03, 0.01, 0.08, 5, bound=0.0)}, "keep: 3.0% right (1 to 8, n=100), promoted with 90.0"),
        ({"decay": EARLY, "askable": 90}, "ask for labels: 46.0% right (37 to 56, n=100), threshold 81.4, evidence 2,000 of 10,000"),
        ({"decay": MIXED}, "mix shift: 46.0% right (37 to 56, n=100), threshold 81.4, label mixed more frequent, 2.0 points within"),
        ({"decay": DECAYED}, "retrain: 46.0% right (37 to 56, n=100), threshold 81.4, evidence over a million of 10,000"),
        ({"decay": DECAYED, "alarms_in_a_row": 1}, "confirming: 46.0% right (37 to 56, n=100), threshold 81.4, found in 1 of 2 checks"),
        ({"decay": DECAYED, "minutes_since_refresh": 20.0}, "cooling down: 46.0% right (37 to 56, n=100), threshold 81.4, refresh in 40 min"),
        ({"decay": DECAYED, "device_hours": 3.2}, "over budget: 46.0% right (37 to 56, n=100), threshold 81.4, 3.2 of 3 device hours spent"),
        ({"decay": DECAYED, "labels_since_refresh": 60}, "collect more labels: 46.0% right (37 to 56, n=100), threshold 81.4, refresh after 40 more labels"),
        ({"labelled": 0, "decay": HEALTHY}, "collect more labels: 0 new labels since the last check, 420 before"),
        (
            {"labelled": 0, "estimate": FALL, "drift": DRIFT},
            "ask for labels: estimated 54.0% right (53.3 to 54.6 at 98%, n=80), 40.0 points below the reference",
        ),
        ({"labelled": 0, "drift": DRIFT}, "ask for labels: inputs and predictions drifted (n=80)"),
    ],
)  # fmt: skip
def test_a_check(changes: dict[str, Any], line: str) -> None:
    changed = {**changes, "labels_since_refresh": changes.get("labels_since_refresh")}
    if changes.get("decay") is DECAYED:
        changed["decay"] = replace(DECAYED, labels_since_fall=500)
    assert headline(checked(**changed)) == line


AGAIN = {"labels_of_change": 200, "labels_since_refresh": 240, "estimate": FALL}


def test_a_second_refresh_for_one_change_is_not_said_to_be_by_an_estimate() -> None:
    line = headline(checked(**AGAIN))
    assert (
        line
        == "retrain: 240 labels since the last refresh, which had 200 of the change, 87.0% right (79 to 92, n=100), threshold 81.4"
    )


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, False),
        ({"decay": DECAYED}, True),
        ({"decay": DECAYED, "alarms_in_a_row": 1}, True),
        ({"decay": DECAYED, "labels_since_refresh": 60}, True),
        ({"decay": MIXED}, False),
        ({"decay": EARLY, "askable": 90}, False),
        ({"labelled": 0}, False),
        (AGAIN, False),
    ],
)  # fmt: skip
def test_what_a_check_calls_decay(changes: dict[str, Any], found: bool) -> None:
    assert finds_decay(checked(**changes)) is found


def test_enough_labels_for_a_first_version_are_no_decay() -> None:
    evidence = FirstRefreshEvidence(230, 0, None, 0, 0.0)
    assert not finds_decay(decided(should_tune_first_version(evidence, WATCH, REFRESH), evidence))


@pytest.mark.parametrize(
    ("labelled", "minutes", "line"),
    [
        (0, None, "ask for labels: 0 of 200 labels and rows for a first tuned version"),
        (230, None, "retrain: 230 labels and rows for a first tuned version"),
        (230, 20.0, "cooling down: 230 labels and rows for a first tuned version, refresh in 40 min"),
    ],
)
def test_a_check_of_the_prompted_base(labelled: int, minutes: float | None, line: str) -> None:
    evidence = FirstRefreshEvidence(labelled, 0, minutes, 0, 0.0)
    assert headline(decided(should_tune_first_version(evidence, WATCH, REFRESH), evidence)) == line


BETTER = PairedEvidence(0.061, Interval(0.023, 0.099), 0.001, 219, 0.1)
SAME = PairedEvidence(0.0, Interval(-0.01, 0.01), 0.5, 3000, 0.02)
WORSE = PairedEvidence(-0.2, Interval(-0.25, -0.15), 1.0, 3000, 0.2, 0.0001)
FEW = PairedEvidence(0.1, Interval(-0.1, 0.3), 0.2, 30)
PROMOTION = PromotionEvidence(SAME, BETTER, "champion")


def rival(score: float, lead: float, gate: PromotionEvidence | None = None) -> Rival:
    return Rival(score, 0.932, PairedEvidence(lead, Interval(lead - 0.05, lead + 0.05), 0.01, 314), gate)


def judged(evidence: PromotionEvidence) -> Decision:
    choice = choose(evidence, GATE)
    return decided(choice.verdict, evidence, choice.system)


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        (
            replace(PROMOTION, rivals={"linear": rival(0.8, 0.132)}),
            "promote the challenger: +6.1 points (2.3 to 9.9, n=219), 93.2% right",
        ),
        (
            replace(PROMOTION, rivals={"linear": rival(0.95, -0.018, PROMOTION)}, metric="balanced accuracy"),
            "promote the linear model: +6.1 points (2.3 to 9.9, n=219), balanced accuracy 95.0",
        ),
        (
            replace(PROMOTION, balanced=replace(BETTER, difference=0.08, interval=Interval(0.02, 0.14))),
            "promote the challenger: +8.0 points (2.0 to 14.0, n=219)",
        ),
        (
            PromotionEvidence(replace(BETTER, rows=300), None, "base"),
            "promote the challenger: +6.1 points (2.3 to 9.9, n=300) over the base",
        ),
        (
            replace(PROMOTION, recent=SAME),
            "reject the challenger: +0.0 points (-1.0 to 1.0, n=3000), no gain shown",
        ),
        (
            replace(PROMOTION, frozen=WORSE),
            "reject the challenger: -20.0 points (-25.0 to -15.0, n=3000), worse on the frozen holdout",
        ),
        (
            replace(PROMOTION, slices={"label refund": replace(WORSE, rows=40)}),
            "reject the challenger: -20.0 points (-25.0 to -15.0, n=40) on label refund",
        ),
        (
            replace(PROMOTION, recalls={"spam": Recall(0.091, Interval(0.002, 0.413), 11, 0.5)}),
            "reject the challenger: finds 9.1% (0 to 41, n=11) of label spam",
        ),
        (
            replace(PROMOTION, limits={"latency": Limit(1.8, Interval(1.7, 1.9), 1.5, 40, "times")}),
            "reject the challenger: latency 1.8 (1.7 to 1.9, n=40), limit 1.5",
        ),
        (
            replace(PROMOTION, limits={"leakage": Limit(4, None, 0, 100, "rows")}),
            "reject the challenger: leakage 4 (n=100), limit 0",
        ),
        (
            replace(PROMOTION, recent=FEW, label_ratios={"recent": 0.4}),
            "collect more labels: +10.0 points (-10.0 to 30.0, n=30), 50 more for the recent holdout",
        ),
    ],
)
def test_a_promotion(evidence: PromotionEvidence, line: str) -> None:
    assert headline(judged(evidence)) == line


def test_the_score_is_that_on_the_most_rows() -> None:
    """A rival that was found to be behind early has answered some of the rows only."""
    some, every = rival(0.5, 0.4), replace(rival(0.8, 0.132), challenger=0.9)
    some = replace(some, lead=replace(some.lead, rows=40))
    for rivals in ({"few-shot": some, "linear": every}, {"linear": every, "few-shot": some}):
        assert headline(judged(replace(PROMOTION, rivals=rivals))).endswith(", 90.0% right")


def compared(difference: float, low: float, high: float, rows: int = 400, champion_rows: int = 400) -> Comparison:
    return Comparison(0.9 + difference, 0.9, difference, Interval(low, high), rows, champion_rows)


NO_COST = compared(0.0, -0.01, 0.01)


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        (
            TrialEvidence("canary", 200, compared(0.005, -0.08, 0.09, 40, 120), NO_COST, NO_COST),
            "continue: quality +0.5 points (-8.0 to 9.0, n=40 and 120), 200 requests",
        ),
        (
            TrialEvidence("canary", 1200, compared(0.005, -0.01, 0.02), NO_COST, NO_COST),
            "promote version 4: quality +0.5 points (-1.0 to 2.0, n=400), 1,200 requests",
        ),
        (
            TrialEvidence("canary", 1200, compared(0.0, -1.0, 1.0, 0, 0), NO_COST, NO_COST),
            "promote version 4: errors +0.0 points (-1.0 to 1.0, n=400), 1,200 requests",
        ),
        (
            TrialEvidence("shadow", 60, NO_COST, compared(0.2, 0.1, 0.3), NO_COST),
            "abort version 4: errors +20.0 points (10.0 to 30.0, n=400), 60 requests",
        ),
        (
            TrialEvidence("shadow", 60, NO_COST, NO_COST, compared(0.2, 0.1, 0.3)),
            "abort version 4: slow answers +20.0 points (10.0 to 30.0, n=400), 60 requests",
        ),
        (
            TrialEvidence("shadow", 60, compared(-0.2, -0.3, -0.1), NO_COST, NO_COST),
            "abort version 4: quality -20.0 points (-30.0 to -10.0, n=400), 60 requests",
        ),
        (
            TrialEvidence("canary", 10, compared(0.0, -1.0, 1.0, 0, 0), NO_COST, NO_COST),
            "continue: quality unknown (n=0), 10 requests",
        ),
    ],
)
def test_a_trial(evidence: TrialEvidence, line: str) -> None:
    assert headline(decided(should_release(evidence, RELEASE), evidence)) == line


def test_a_rollback() -> None:
    found = RollbackEvidence(DECAYED, 60, 300, "3", 0.9, "accuracy")
    verdict = should_roll_back(found)
    assert verdict is not None
    assert headline(decided(verdict, found)) == (
        "roll back: 46.0% right (37 to 56, n=100), threshold 81.4, to version 3 (90.0)"
    )
    hand = ManualRollback("it promises refunds", "4", "3", 0.34)
    assert headline(decided(manual_rollback(hand), hand)) == (
        "roll back: version 4 to version 3, in 0.3 s, by hand (it promises refunds)"
    )


def test_a_persons_word() -> None:
    def said(evidence: ApprovalEvidence) -> str:
        return headline(decided(approved(evidence), evidence))

    yes = ApprovalEvidence("4", "3", "3", 72, True, "Ada", "reads well")
    assert said(yes) == "promote version 4: approved by Ada: reads well"
    assert said(replace(yes, approve=False)) == "reject version 4: refused by Ada: reads well"
    assert said(replace(yes, approve=None)) == "reject version 4: no answer within 72 hours"
    assert said(replace(yes, approve=None, cancelled=True)) == "reject version 4: cancelled before an answer"
    assert said(replace(yes, cancelled=True)) == "reject version 4: approved by Ada, then cancelled: reads well"
    late = said(replace(yes, champion="5"))
    assert late == "reject version 4: approved by Ada, but the champion changed meanwhile: reads well"
    hand = ManualPromotion("dearer,\nand worth it", "4", "3", "reject", 0.2)
    assert headline(decided(manual_promotion(hand), hand)) == (
        "promote version 4: in place of version 3, by hand (dearer, and worth it)"
    )


def every_decision() -> Iterator[Decision]:
    for labelled in (0, 100):
        for seen in (HEALTHY, DECAYED) if labelled else (None, HEALTHY, DECAYED):
            for drift, estimate in ((None, None), (DRIFT, None), (DRIFT, FALL)):
                yield checked(labelled=labelled, decay=seen, drift=drift, estimate=estimate)
    for paired in (BETTER, SAME, WORSE, FEW):
        for rivals in ({}, {"linear": rival(0.9, 0.0, PROMOTION), "majority": rival(0.5, 0.4)}):
            yield judged(replace(PROMOTION, recent=paired, rivals=rivals, untrained=bool(rivals)))
    for quality in (NO_COST, compared(-0.2, -0.3, -0.1)):
        evidence = TrialEvidence("canary", 2000, quality, NO_COST, NO_COST)
        yield decided(should_release(evidence, RELEASE), evidence)
    person = ApprovalEvidence("4", None, "3", 72, True, "Ada", "it\nreads " + "very " * 60 + "well")
    yield decided(approved(person), person)
    hand = ManualRollback("x" * 300, "4", "3", None)
    yield decided(manual_rollback(hand), hand)
    late = RollbackEvidence(DECAYED, 60, 300, "3", None)
    yield decided(should_roll_back(late) or manual_rollback(hand), late)


def spoiled(value: Any, picks: random.Random) -> Any:
    """The same evidence with some of it missing, None, no number, or of another kind."""
    if picks.random() < 0.2:
        return picks.choice([None, math.nan, math.inf, "text", {}, [], True, 7])
    if isinstance(value, dict):
        return {name: spoiled(inner, picks) for name, inner in value.items() if picks.random() < 0.8}
    return value


def is_a_line(line: str, decision: Decision) -> bool:
    whole = "\n" not in line and len(line) <= WIDTH and line.startswith(decision.outcome)
    return whole and not any(word in line.lower() for word in ("nan", "none", "inf ", "inf,"))


def test_every_verdict_is_one_line_that_begins_with_the_outcome() -> None:
    for decision in every_decision():
        assert is_a_line(headline(decision), decision), headline(decision)
        step = next_step(decision)
        assert step is None or (len(f"next: {step}") <= WIDTH and "\n" not in step)
        read = Decision.from_json(decision.to_json())
        assert headline(read) == headline(decision), "from a file as from memory"


@pytest.mark.parametrize("seed", range(30))
def test_a_record_that_lacks_its_numbers_gives_a_line_too(seed: int) -> None:
    picks = random.Random(seed)
    for decision in every_decision():
        broken = decision.model_copy(update={"evidence": spoiled(decision.evidence, picks) or {}})
        if not isinstance(broken.evidence, dict):
            broken = broken.model_copy(update={"evidence": {}})
        assert is_a_line(headline(broken), broken), headline(broken)


@pytest.mark.parametrize("kind", ["promotion", "approval", "retraining", "trial", "rollback", "promotion by hand"])
@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_record_without_evidence_gives_its_reason(kind: Any, outcome: Any) -> None:
    bare = Decision(
        kind=kind,
        task="tickets",
        time=datetime(2026, 1, 2, tzinfo=UTC),
        outcome=outcome,
        reasons=("It is so.", "And so."),
        rule="A rule.",
        evidence={},
        ids=Ids(),
    )
    line = headline(bare)
    assert is_a_line(line, bare)
    assert line.endswith((": It is so.", ": by hand")) or "nobody answered" in line or line.endswith("by hand")


def test_a_record_from_before_the_evidence_and_under_older_names() -> None:
    window = {"mean": 0.46, "interval": {"low": 0.366, "high": 0.557, "level": 0.95}, "rows": 100}
    old = {
        "labelled": 100,
        "decay": {"window": window, "reference": {"mean": 0.9}, "drop": 0.44},
        "vain_refreshes": 1,
        "minutes_since_refresh": 20.0,
    }
    decision = checked(decay=DECAYED).model_copy(update={"evidence": json.loads(json.dumps(old)), "outcome": "retrain"})
    assert headline(decision) == "retrain: score 46.0 (37 to 56, n=100), promoted with 90.0"
    assert next_steps(decision)

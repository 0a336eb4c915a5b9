from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from perpetune.params import PromoteParams
from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.next_step import next_steps
from perpetune.policy.decision.record import Decision, Ids
from perpetune.policy.promotion.evidence import Limit, PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.gate import should_promote
from perpetune.policy.verdict import Interval, Outcome

RULES = PromoteParams(
    metric="auto",
    margin=0.03,
    alpha=0.05,
    min_rows=50,
    gain=0.05,
    power=0.9,
    simpler_margin=0.01,
    slice_margin=0.1,
    slice_rows=20,
    min_recall=0.5,
    max_forgetting=0.5,
    max_slowdown=1.5,
    max_cost=1.5,
    timed_rows=30,
    approval="none",
    approval_hours=72,
)
BETTER = PairedEvidence(0.3, Interval(0.2, 0.4), 0.0001, 300, 0.4)
SAME = PairedEvidence(0.0, Interval(-0.01, 0.01), 0.5, 3000, 0.02)
DECAY = {
    "window": {"mean": 0.7, "interval": {"low": 0.6, "high": 0.8, "level": 0.95}, "rows": 120},
    "reference": {"mean": 0.9, "interval": {"low": 0.87, "high": 0.93, "level": 0.95}, "rows": 600},
}


def decision(
    kind: Any, outcome: Any, evidence: dict[str, Any] | None = None, *reasons: str, champion: str | None = None
) -> Decision:
    return Decision(
        kind=kind,
        task="tickets",
        time=datetime(2026, 1, 2, tzinfo=UTC),
        outcome=outcome,
        reasons=reasons or ("It is so.",),
        rule="A rule.",
        evidence=evidence or {},
        ids=Ids(model_version="3", champion_version=champion),
    )


def judged(evidence: PromotionEvidence) -> Decision:
    """As the gate itself decides on it."""
    verdict = should_promote(evidence, RULES)
    return decision("promotion", verdict.outcome, asdict(evidence), *verdict.reasons)


@pytest.mark.parametrize("kind", ["promotion", "approval", "retraining", "trial", "rollback", "promotion by hand"])
@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_no_verdict_but_a_promotion_is_a_dead_end(kind: str, outcome: str) -> None:
    said = next_steps(decision(kind, outcome))
    assert bool(said) == (outcome != "promote")
    assert not said or any(sign in " ".join(said) for sign in ("`perpetune ", "POST /v1/feedback"))


@pytest.mark.parametrize(
    ("name", "setting"), [("forgetting", "max_forgetting"), ("latency", "max_slowdown"), ("cost", "max_cost")]
)
def test_a_limit_that_vetoes_names_its_setting_and_the_way_past_it(name: str, setting: str) -> None:
    limits = {name: Limit(1.489, Interval(1.4, 1.6), 1.3, 40, "times"), "other": Limit(1, Interval(0, 2), 1.5, 40, "")}
    said = next_steps(judged(PromotionEvidence(BETTER, None, "base", limits=limits)))
    assert f"set promote.{setting} above 1.49 in params.yaml" in said[0]
    assert "other" not in said[0]
    assert said[-1] == "Or take it anyway: `perpetune promote 3 --reason '...'`."


def test_what_was_trained_on_the_holdout_has_no_setting() -> None:
    limits = {"leakage": Limit(4, None, 0, 100, "rows")}
    (said, _) = next_steps(judged(PromotionEvidence(BETTER, None, "base", limits=limits)))
    assert "remove the leakage from the training data" in said


def test_a_harmed_label_asks_for_examples_of_it() -> None:
    harmed = PairedEvidence(-0.4, Interval(-0.6, -0.2), 1.0, 40, 0.4, p_worse=0.0001)
    unharmed = PairedEvidence(0.1, Interval(0.0, 0.2), 0.1, 40, 0.2)
    slices = {"label refund": harmed, "label parcel": unharmed}
    said = next_steps(judged(PromotionEvidence(BETTER, None, "base", slices=slices)))
    assert "`perpetune ingest FILE` more examples of label refund, then" in said[0]
    assert "parcel" not in said[0]


def test_too_few_rows_say_how_many_of_which_holdout_and_how_they_come_there() -> None:
    frozen = judged(PromotionEvidence(PairedEvidence(0.1, Interval(-0.1, 0.3), 0.2, 30), None, "base"))
    assert "20 more labelled rows are wanted in the frozen holdout: `perpetune ingest FILE`" in next_steps(frozen)[0]
    recent = judged(PromotionEvidence(SAME, PairedEvidence(0.1, Interval(-0.1, 0.3), 0.2, 30), "champion"))
    assert "20 more labelled rows are wanted in the recent holdout" in next_steps(recent)[0]
    assert "POST /v1/feedback" in next_steps(recent)[0]


def test_a_challenger_that_is_no_better_leaves_what_serves() -> None:
    no_better = PromotionEvidence(SAME, SAME, "champion")
    verdict = should_promote(no_better, RULES)
    assert verdict.outcome == "reject"
    said = next_steps(decision("promotion", "reject", asdict(no_better), *verdict.reasons, champion="2"))
    assert said[0].startswith("Version 2 goes on serving")
    assert "`perpetune tune --write`" in said[0]
    assert "No version serves yet" in next_steps(decision("promotion", "reject"))[0]


@pytest.mark.parametrize(
    ("outcome", "evidence", "reason", "wanted"),
    [
        ("keep", {"decay": DECAY}, "It is fine.", "watch.cron"),
        ("keep", {"decay": None}, "No score.", "`perpetune refresh`"),
        ("confirming", {"alarms_in_a_row": 1}, "Decay was found in 1 of the 3 looks in a row", "after 2 more checks"),
        ("cooling down", {"minutes_since_refresh": 20.0}, "the cooldown is 60 minutes.", "in 40 minutes"),
        ("over budget", {}, "Too much.", "refresh.gpu_hours_per_month"),
        ("mix shift", {}, "More of it.", "watch.mix_shift"),
        ("ask for labels", {}, "It fell.", "perpetune labels --bring wanted.jsonl"),
        ("collect more labels", {}, "No labels.", "POST /v1/feedback"),
    ],
)
def test_each_outcome_of_a_check_says_what_happens_next(
    outcome: str, evidence: dict[str, Any], reason: str, wanted: str
) -> None:
    assert wanted in next_steps(decision("retraining", outcome, evidence, reason))[0]


def test_nobodys_word_and_a_no_are_told_apart() -> None:
    assert "promote.approval_hours" in next_steps(decision("approval", "reject", {"approve": None}))[0]
    assert "`perpetune refresh`" in next_steps(decision("approval", "reject", {"approve": False}))[0]
    cancelled = next_steps(decision("approval", "reject", {"approve": None, "cancelled": True}))
    assert "promote.approval_hours" not in " ".join(cancelled)


def test_what_gave_way_can_come_again() -> None:
    said = next_steps(decision("rollback", "roll back", {"rolled_back": "4", "restored": "3"}))
    assert "`perpetune promote 4 --reason '...'`" in said[1]


def test_the_page_of_a_decision_says_it_too() -> None:
    page = as_markdown(decision("promotion", "reject"))
    assert "## What to do next\n\n- No version serves yet" in page
    assert "What to do next" not in as_markdown(decision("promotion", "promote"))


def test_what_a_later_gate_records_is_read_too() -> None:
    limits = {
        "size": {"value": 3.0, "limit": 2.0, "interval": None, "setting": "promote.max_size"},
        "forgetting": {"value": 9.0, "limit": None, "interval": {"low": 8.0, "high": 9.9, "level": 0.95}},
    }
    reason = (
        "It finds 9.1% of the 11 rows labelled spam (95% interval 0.2 to 41.3), below the floor (promote.min_recall)."
    )
    evidence = {"limits": limits, "recalls": {"spam": {}, "ham": {}}}
    said = next_steps(decision("promotion", "reject", evidence, reason))
    assert said[0].startswith("To let it pass, set promote.max_size above 3 in params.yaml, then")
    assert "more examples of label spam, then" in said[1] and "promote.min_recall" in said[1]
    waits = decision("retraining", "collect more labels", {}, "The next refresh waits for 40 more labels: 60 of 100.")
    assert "40 more labels to POST /v1/feedback start the next refresh" in next_steps(waits)[0]

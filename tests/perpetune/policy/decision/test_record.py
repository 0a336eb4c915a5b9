from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.promotion.evidence import Limit, PairedEvidence, PromotionEvidence
from perpetune.policy.retraining import ColumnDrift, Decay, DriftEvidence, RetrainEvidence
from perpetune.policy.verdict import Interval, Outcome, Score, Verdict

PROMOTION = PromotionEvidence(
    frozen=PairedEvidence(0.004, Interval(-0.012, 0.02), 0.3, 400, 0.03, 1.0),
    recent=PairedEvidence(0.062, Interval(0.021, 0.103), 0.002, 180, 0.1, 1.0),
    against="champion",
)
RETRAINING = RetrainEvidence(
    labelled=120,
    labelled_in_all=420,
    decay=Decay(
        window=Score(0.7, Interval(0.6, 0.8), 120),
        reference=Score(0.9, Interval(0.87, 0.93), 600),
        since_release=Score(0.8, Interval(0.7, 0.9), 420),
        drop=0.2,
        interval=Interval(0.1, 0.3),
        margin=0.05,
        bound=0.83,
        evidence=12400.4,
        run_length=10000.0,
        labels_since_fall=60,
    ),
    alarms_in_a_row=1,
    drift=DriftEvidence(True, 300, 600, 1.0, True, False, {"words": ColumnDrift("ks", 1e-9, 0.002, True)}),
    minutes_since_refresh=None,
    unsuccessful_refreshes=0,
    device_hours=1.25,
)


def decision(evidence: PromotionEvidence | RetrainEvidence, ids: Ids | None = None) -> Decision:
    outcome: Outcome = "promote" if isinstance(evidence, PromotionEvidence) else "retrain"
    verdict = Verdict(outcome, ("It is better.", "It is not worse."), "Promote what is better.")
    time = datetime(2025, 1, 2, 3, 4, tzinfo=UTC)
    return record(verdict, evidence, task="reviews", time=time, ids=ids or Ids(run_id="abc", data_version="0f"))


def test_the_kind_follows_the_evidence() -> None:
    assert (decision(PROMOTION).kind, decision(RETRAINING).kind) == ("promotion", "retraining")


@pytest.mark.parametrize("evidence", [PROMOTION, RETRAINING])
def test_a_record_survives_json(evidence: PromotionEvidence | RetrainEvidence) -> None:
    written = decision(evidence)
    assert Decision.from_json(written.to_json()) == written


def test_the_record_holds_the_decisive_reason() -> None:
    assert json.loads(decision(PROMOTION).to_json())["reason"] == "It is better."


def test_a_record_of_a_later_version_can_be_read() -> None:
    later = json.loads(decision(PROMOTION).to_json()) | {"approved_by": "somebody"}
    assert Decision.from_json(json.dumps(later)) == decision(PROMOTION)


@pytest.mark.parametrize("changes", [{"reasons": []}, {"outcome": "maybe"}, {"time": "2025-01-02T03:04:00"}])
def test_a_broken_record_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Decision.from_json(json.dumps(json.loads(decision(PROMOTION).to_json()) | changes))


def test_a_promotion_reads_as_a_page() -> None:
    page = as_markdown(decision(PROMOTION), {"MLflow run": "http://host/run"})
    assert page.startswith("# Promotion of reviews: promote\n\n**It is better.**\n\n- It is not worse.\n")
    assert "|  | difference | interval | p value | rows | discordance | p worse |" in page
    assert "| recent | 0.062 | 0.021 to 0.103 (95%) | 0.002 | 180 | 0.1 | 1 |" in page
    assert "| data version | `0f` |" in page
    assert "champion version" not in page
    assert "lices" not in page
    assert page.endswith("[MLflow run](http://host/run)\n")


def test_slices_and_limits_have_tables_of_their_own() -> None:
    slices = {"label mixed": PairedEvidence(-0.02, Interval(-0.12, 0.07), 0.7, 60, 0.1, 0.93)}
    limits = {
        "forgetting": Limit(0.02, Interval(-0.01, 0.05), 0.15, 64, "nats a token"),
        "leakage": Limit(0, None, 0, 580, "rows"),
    }
    page = as_markdown(decision(replace(PROMOTION, slices=slices, limits=limits)))
    assert "### Slices\n\n|  | difference |" in page
    assert "| label mixed | -0.02 | -0.12 to 0.07 (95%) | 0.7 | 60 | 0.1 | 0.93 |" in page
    assert "### Limits\n\n|  | value | interval | limit | rows | unit |" in page
    assert "| leakage | 0 |  | 0 | 580 | rows |" in page


def test_a_retraining_shows_scores_and_drifted_columns() -> None:
    page = as_markdown(decision(RETRAINING))
    assert "| window | 0.7 | 0.6 to 0.8 (95%) | 120 |" in page
    assert "| since release | 0.8 | 0.7 to 0.9 (95%) | 420 |" in page
    assert "| interval | 0.1 to 0.3 (95%) |" in page
    assert "| evidence | 1.24e+04 |" in page
    assert "| device hours | 1.25 |" in page
    assert "restarted from" not in page
    assert "| words | ks | 1e-09 | 0.002 | yes |" in page
    assert "minutes since refresh" not in page


def test_a_bar_in_a_value_does_not_break_its_table() -> None:
    assert "| `a\\|b` |" in as_markdown(decision(PROMOTION, Ids(run_id="a|b")))

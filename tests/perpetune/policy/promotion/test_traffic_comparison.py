"""How much stored traffic is worth answering. Error rates of the verdicts: benchmarks/few_labels.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perpetune.params import PromoteParams
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.traffic_comparison import MOST_TRAFFIC, rows_to_answer, wanted_gain
from perpetune.policy.verdict import Interval

RULES = PromoteParams()


def evidence(frozen: float, recent: float | None) -> PromotionEvidence:
    paired = PairedEvidence(0.0, Interval(-0.02, 0.02), 0.5, 500, other=frozen)
    return PromotionEvidence(paired, replace(paired, other=recent) if recent is not None else None, "champion")


def test_usual_disagreement_needs_no_more_requests_than_the_first() -> None:
    assert rows_to_answer(evidence(0.85, 0.85), 150, 1500, RULES) == 1500


def test_few_disagreements_at_99_percent_are_worth_more_requests() -> None:
    assert 3000 < rows_to_answer(evidence(0.99, 0.99), 12, 1500, RULES) <= MOST_TRAFFIC * 1500
    assert rows_to_answer(evidence(0.99, 0.99), 0, 1500, RULES) == 1500, "no gain is possible"


def test_the_labels_of_people_bound_the_requests_too() -> None:
    few = RULES.model_copy(update={"disagreement_labels": 20})
    assert rows_to_answer(evidence(0.99, 0.99), 15, 1500, few) == 2000


@pytest.mark.parametrize(
    ("frozen", "recent", "gain"),
    [
        (0.85, 0.75, 0.05),
        (0.99, 0.99, 0.005),
        (0.992, 0.984, 0.006),  # by chance more errors than usual
        (0.90, 0.99, 0.005),  # the earlier traffic was harder
        (0.99, None, 0.005),
    ],
)
def test_the_gain_worth_finding_is_half_of_the_errors(frozen: float, recent: float | None, gain: float) -> None:
    assert wanted_gain(evidence(frozen, recent), RULES) == pytest.approx(gain)

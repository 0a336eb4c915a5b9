from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from perpetune.evaluation.latency import LatencyPair
from perpetune.evaluation.leakage import Leakage
from perpetune.evaluation.vetoes import as_metrics, forgetting_limit, latency_limits, leakage_limits
from perpetune.params import EvaluateParams, PromoteParams, load_params
from perpetune.policy.promotion.evidence import Limit
from perpetune.policy.verdict import Interval

ROOT = Path(__file__).parents[3]
PACE = LatencyPair((1.0,) * 20, (2.0,) * 20, 20)


@pytest.fixture
def rules() -> PromoteParams:
    return load_params(ROOT / "params.yaml").promote


def test_what_is_null_is_not_asked_for(rules: PromoteParams, params: EvaluateParams) -> None:
    off = rules.model_copy(update={"max_forgetting": None, "max_slowdown": None, "max_cost": None})
    assert forgetting_limit([], [], off, params) == {}
    assert latency_limits(PACE, "champion", off, params) == {}
    assert list(latency_limits(PACE, "base", off.model_copy(update={"max_cost": 3.0}), params)) == ["cost"]


def test_forgetting_is_measured_with_and_without_a_limit(rules: PromoteParams, params: EvaluateParams) -> None:
    assert rules.max_forgetting is None, "it vetoes nothing unless a team says so"
    shown = forgetting_limit([1.0], [3.0], rules, params)["forgetting"]
    assert (shown.value, shown.limit, shown.exceeded) == (2.0, None, False)
    assert "forgetting/limit" not in as_metrics({"forgetting": shown})
    asked = rules.model_copy(update={"max_forgetting": 0.5})
    assert forgetting_limit([1.0] * 9, [3.0] * 9, asked, params)["forgetting"].exceeded


def test_repeated_rows_are_mentioned(rules: PromoteParams, params: EvaluateParams) -> None:
    again = LatencyPair((1.0,) * 30, (1.0,) * 30, 6)
    assert latency_limits(again, "champion", rules, params)["cost"].unit == (
        "times the champion's cost of a request, 6 rows, repeated"
    )


def test_beside_what_is_no_language_model_pace_vetoes_nothing(rules: PromoteParams, params: EvaluateParams) -> None:
    slow = LatencyPair((0.001,) * 30, (1.0,) * 30, 30)
    assert latency_limits(slow, "champion", rules, params)["latency"].exceeded
    assert not latency_limits(slow, "champion", rules, params, vetoes=False)["latency"].exceeded


def test_each_limit_carries_its_estimate_interval_and_rows(rules: PromoteParams, params: EvaluateParams) -> None:
    limits = forgetting_limit([1.0, 2.0, 3.0], [1.5, 2.1, 3.3], rules, params) | latency_limits(
        PACE, "base", rules, params
    )
    assert limits["forgetting"].value == pytest.approx(0.3)
    assert limits["forgetting"].limit == rules.max_forgetting and limits["forgetting"].rows == 3
    assert (limits["latency"].value, limits["cost"].value) == (2.0, 2.0)
    metrics = as_metrics(limits)
    assert metrics["forgetting/low"] <= metrics["forgetting/value"] <= metrics["forgetting/high"]


def test_one_row_trained_on_is_too_many_and_near_ones_may_be_a_share(rules: PromoteParams) -> None:
    limits = leakage_limits(Leakage(("a",), ("b", "c"), 50, 100), rules)
    assert limits["leakage"].limit is not None and limits["leakage"].value > limits["leakage"].limit
    assert limits["near leakage"].limit == rules.margin
    assert limits["near leakage"].value == 0.02 <= rules.margin
    assert "near_leakage/low" not in as_metrics(limits), "it is counted and not estimated"


def test_what_is_estimated_must_be_shown_to_be_too_much_and_what_is_counted_must_not_be() -> None:
    noisy = Limit(1.7, Interval(1.2, 2.5), 1.5, 40, "times")
    assert not noisy.exceeded
    assert replace(noisy, interval=Interval(1.6, 1.8)).exceeded
    assert replace(noisy, interval=None).exceeded
    assert Limit(float("nan"), None, 1.5, 40, "times").exceeded

"""Measurements with a limit that can veto a promotion: forgetting, latency, cost and leakage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perpetune.evaluation.forgetting import forgetting
from perpetune.evaluation.latency import LatencyPair, cost_ratio, slowdown
from perpetune.evaluation.leakage import Leakage
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion.evidence import Limit
from perpetune.policy.verdict import Interval
from perpetune.statistics.estimate import Estimate


def forgetting_limit(
    before: Sequence[float],
    after: Sequence[float],
    rules: PromoteParams,
    params: EvaluateParams,
    *,
    vetoes: bool = True,
) -> dict[str, Limit]:
    """The rise of the loss on general text; {} if no text fits the context. `vetoes` False sets no limit."""
    if not after:
        return {}
    limit_value = rules.max_forgetting if vetoes else None
    unit = "nats per token more on general text"
    return {
        "forgetting": _estimated(forgetting(before, after, params), limit_value, unit, "promote.max_forgetting", params)
    }


def latency_limits(
    latencies: LatencyPair, other: str, rules: PromoteParams, params: EvaluateParams, *, vetoes: bool = True
) -> dict[str, Limit]:
    """Latency and cost as ratios to those of the `other` system, if params.yaml sets a maximum."""
    found = {}
    repeated = f", {latencies.rows} rows, repeated" if latencies.rows < len(latencies.ours) else ""
    if rules.max_slowdown is not None:
        limit_value = rules.max_slowdown if vetoes else None
        unit = f"times the {other}'s 95th percentile{repeated}"
        found["latency"] = _estimated(slowdown(latencies, params), limit_value, unit, "promote.max_slowdown", params)
    if rules.max_cost is not None:
        limit_value = rules.max_cost if vetoes else None
        unit = f"times the {other}'s cost of a request{repeated}"
        found["cost"] = _estimated(cost_ratio(latencies, params), limit_value, unit, "promote.max_cost", params)
    return found


def leakage_limits(found: Leakage, rules: PromoteParams) -> dict[str, Limit]:
    """Limits on held-out rows that were trained on: none may be equal.

    Near duplicates are natural in some data (forms, logs), so up to `promote.margin` of the rows may be: memorised
    answers then change a score by at most the margin.
    """
    ratio = len(found.near) / found.rows
    same = Limit(len(found.same), None, 0.0, found.rows, "held-out rows that were trained on")
    near = Limit(ratio, None, rules.margin, found.rows, "of the held-out rows", "promote.margin")
    return {"leakage": same, "near leakage": near}


def as_metrics(limits: Mapping[str, Limit]) -> dict[str, float]:
    """MLflow metrics: forgetting/value, forgetting/low, ..."""
    metrics = {}
    for name, limit in limits.items():
        prefix = name.replace(" ", "_")
        metrics[f"{prefix}/value"] = limit.value
        if limit.limit is not None:
            metrics[f"{prefix}/limit"] = limit.limit
        metrics[f"{prefix}/rows"] = float(limit.rows)
        if limit.interval is not None:
            metrics[f"{prefix}/low"], metrics[f"{prefix}/high"] = limit.interval.low, limit.interval.high
    return metrics


def _estimated(estimate: Estimate, limit: float | None, unit: str, setting: str, params: EvaluateParams) -> Limit:
    interval = Interval(estimate.low, estimate.high, params.confidence)
    return Limit(estimate.value, interval, limit, estimate.n, unit, setting)

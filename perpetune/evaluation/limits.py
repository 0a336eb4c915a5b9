"""What else may veto a promotion, measured: the policy only compares it with its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perpetune.evaluation.estimate import Estimate
from perpetune.evaluation.forgetting import forgetting
from perpetune.evaluation.leakage import Leakage
from perpetune.evaluation.pace import Pace, cost_ratio, slowdown
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion import Limit
from perpetune.policy.verdict import Interval


def forgetting_limit(
    before: Sequence[float], after: Sequence[float], rules: PromoteParams, params: EvaluateParams
) -> dict[str, Limit]:
    """The rise of the loss on general text; {} where it is not asked for or no text fitted."""
    if rules.max_forgetting is None or not after:
        return {}
    risen = forgetting(before, after, params)
    return {"forgetting": _estimated(risen, rules.max_forgetting, "nats a token more on general text", params)}


def pace_limits(pace: Pace, other: str, rules: PromoteParams, params: EvaluateParams) -> dict[str, Limit]:
    """Latency and cost, as many times that of the `other`, where they are asked for."""
    found = {}
    if rules.max_slowdown is not None:
        unit = f"times the {other}'s 95th percentile"
        found["latency"] = _estimated(slowdown(pace, params), rules.max_slowdown, unit, params)
    if rules.max_cost is not None:
        unit = f"times the {other}'s cost of a request"
        found["cost"] = _estimated(cost_ratio(pace, params), rules.max_cost, unit, params)
    return found


def leakage_limits(found: Leakage, rules: PromoteParams) -> dict[str, Limit]:
    """No held-out question may have been trained on.

    Near duplicates are natural in some data (forms, logs), so a share of them is borne: one of at most
    `promote.margin`, since answers known by heart then move a score by at most the margin.
    """
    same = Limit(len(found.same), None, 0.0, found.rows, "held-out rows that were trained on")
    near = Limit(len(found.near) / found.rows, None, rules.margin, found.rows, "of the held-out rows")
    return {"leakage": same, "near leakage": near}


def as_metrics(limits: Mapping[str, Limit]) -> dict[str, float]:
    """Flat names for MLflow: forgetting/value, forgetting/low, ..."""
    metrics = {}
    for name, limit in limits.items():
        prefix = name.replace(" ", "_")
        metrics[f"{prefix}/value"] = limit.value
        metrics[f"{prefix}/limit"] = limit.limit
        metrics[f"{prefix}/rows"] = float(limit.rows)
        if limit.interval is not None:
            metrics[f"{prefix}/low"], metrics[f"{prefix}/high"] = limit.interval.low, limit.interval.high
    return metrics


def _estimated(estimate: Estimate, limit: float, unit: str, params: EvaluateParams) -> Limit:
    interval = Interval(estimate.low, estimate.high, params.confidence)
    return Limit(estimate.value, interval, limit, estimate.n, unit)

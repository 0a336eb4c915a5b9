"""What else may veto a promotion, measured: the policy only compares it with its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perpetune.evaluation.forgetting import forgetting
from perpetune.evaluation.latency import LatencyPair, cost_ratio, slowdown
from perpetune.evaluation.leakage import Leakage
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion import Limit
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
    """The rise of the loss on general text, which vetoes where a maximum is set; {} where no text fitted."""
    if not after:
        return {}
    most = rules.max_forgetting if vetoes else None
    unit = "nats a token more on general text"
    return {"forgetting": _estimated(forgetting(before, after, params), most, unit, "promote.max_forgetting", params)}


def latency_limits(
    pace: LatencyPair, other: str, rules: PromoteParams, params: EvaluateParams, *, vetoes: bool = True
) -> dict[str, Limit]:
    """Latency and cost, as many times that of the `other`, where they are asked for."""
    found = {}
    again = f", {pace.rows} rows asked again and again" if pace.rows < len(pace.ours) else ""
    if rules.max_slowdown is not None:
        most = rules.max_slowdown if vetoes else None
        unit = f"times the {other}'s 95th percentile{again}"
        found["latency"] = _estimated(slowdown(pace, params), most, unit, "promote.max_slowdown", params)
    if rules.max_cost is not None:
        most = rules.max_cost if vetoes else None
        unit = f"times the {other}'s cost of a request{again}"
        found["cost"] = _estimated(cost_ratio(pace, params), most, unit, "promote.max_cost", params)
    return found


def leakage_limits(found: Leakage, rules: PromoteParams) -> dict[str, Limit]:
    """No held-out question may have been trained on.

    Near duplicates are natural in some data (forms, logs), so a share of them is borne: one of at most
    `promote.margin`, since answers known by heart then move a score by at most the margin.
    """
    share = len(found.near) / found.rows
    same = Limit(len(found.same), None, 0.0, found.rows, "held-out rows that were trained on")
    near = Limit(share, None, rules.margin, found.rows, "of the held-out rows", "promote.margin")
    return {"leakage": same, "near leakage": near}


def as_metrics(limits: Mapping[str, Limit]) -> dict[str, float]:
    """Flat names for MLflow: forgetting/value, forgetting/low, ..."""
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

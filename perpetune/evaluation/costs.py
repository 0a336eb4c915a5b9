"""Costs of answers and of a refresh, and when a refresh pays for itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpetune.evaluation.systems import phrase
from perpetune.generation.answer import Answer
from perpetune.params import EconomicsParams, EvaluateParams, LargerModel
from perpetune.statistics.estimate import Estimate, bootstrap_mean

SECONDS_PER_HOUR = 3600
DAYS_PER_MONTH = 30


@dataclass(frozen=True)
class Economics:
    """Compute seconds and tokens per request, and dollars per 1,000 requests on a fully used machine."""

    requests: int
    seconds_mean: float
    seconds_p50: float
    seconds_p95: float
    prompt_tokens: float
    completion_tokens: float
    dollars_per_1000: float

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.completion_tokens


def economics(answers: Sequence[Answer], dollars_per_hour: float) -> Economics:
    """The cost of answers at the machine's price per hour."""
    seconds = np.array([answer.seconds for answer in answers])
    mean = float(seconds.mean())
    return Economics(
        requests=len(answers),
        seconds_mean=mean,
        seconds_p50=float(np.quantile(seconds, 0.5)),
        seconds_p95=float(np.quantile(seconds, 0.95)),
        prompt_tokens=float(np.mean([answer.prompt_tokens for answer in answers])),
        completion_tokens=float(np.mean([answer.completion_tokens for answer in answers])),
        dollars_per_1000=dollars_per_hour * mean / SECONDS_PER_HOUR * 1000,
    )


def times_as_much(other: Economics, challenger: Economics) -> float | None:
    """The cost of `other` divided by that of `challenger`; None if `challenger` is free."""
    return other.dollars_per_1000 / challenger.dollars_per_1000 if challenger.dollars_per_1000 > 0 else None


@dataclass(frozen=True)
class Usage:
    """Seconds and tokens of one system for each held-out row, in the same order for all systems."""

    seconds: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]


@dataclass(frozen=True)
class RefreshCost:
    """What a refresh used: device hours (summed over devices), and new labels."""

    device_hours: float
    labels: int


@dataclass(frozen=True)
class CostComparison:
    """The challenger's cost against an alternative, and the break-even of the refresh.

    `saved_per_1000` is the alternative's cost less the challenger's, row by row. The refresh pays for itself after
    `requests`, with an interval from `low` to `high`; None is never.
    """

    name: str
    dollars_per_1000: Estimate
    saved_per_1000: Estimate
    requests: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RefreshEconomics:
    """Dollars per 1,000 requests with the system that would serve otherwise (`before`) and the challenger (`after`).

    `refresh_dollars` is the cost of device hours and labels. `rivals` are the base model prompted with examples and the
    larger model of params.yaml, if any. Intervals have the level `confidence`.
    """

    before_system: str
    before: Estimate
    after: Estimate
    device_hours: float
    dollars_per_hour: float
    labels: int
    dollars_per_label: float
    refresh_dollars: float
    rivals: tuple[CostComparison, ...]
    requests_per_month: int | None
    confidence: float

    def flat_metrics(self) -> dict[str, float]:
        """All numbers by their MLflow metric names; without a break-even if there is none."""
        flat = {
            "economics/device_hours": self.device_hours,
            "economics/labels": float(self.labels),
            "economics/refresh_dollars": self.refresh_dollars,
        } | _named("economics/before_dollars_per_1000", self.before)
        flat |= _named("economics/after_dollars_per_1000", self.after)
        for kind, rival in zip(("prompted", "larger_model"), self.rivals, strict=False):
            flat |= _named(f"economics/{kind}/dollars_per_1000", rival.dollars_per_1000)
            flat |= _named(f"economics/{kind}/saved_per_1000", rival.saved_per_1000)
            for end in ("requests", "low", "high"):
                requests = getattr(rival, end)
                if requests is not None:
                    name = "break_even_requests" if end == "requests" else f"break_even_requests_{end}"
                    flat[f"economics/{kind}/{name}"] = requests
        return flat


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def refresh_economics(
    usage: Mapping[str, Usage],
    spent: RefreshCost,
    params: EconomicsParams,
    evaluate: EvaluateParams,
    requests_per_month: int | None,
) -> RefreshEconomics:
    """The costs and savings of a refresh, from each system's usage on the same rows.

    `usage` has "challenger", "base" and, if they answered, "champion" and "few-shot". A larger model is priced by the
    tokens of the prompted base, counted with our tokenizer. Intervals are percentile bootstraps over rows; they have no
    width if all rows cost the same.
    """
    prompted = "few-shot" if "few-shot" in usage else "base"
    before = "champion" if "champion" in usage else prompted
    challenger = _busy(usage["challenger"], evaluate.dollars_per_hour)
    refresh = spent.device_hours * evaluate.dollars_per_hour + spent.labels * params.dollars_per_label
    rivals = [(phrase(prompted), _busy(usage[prompted], evaluate.dollars_per_hour))]
    if params.larger_model:
        with_examples = " with the same examples" if prompted == "few-shot" else ""
        rivals.append((f"{params.larger_model.name}{with_examples}", _bought(usage[prompted], params.larger_model)))
    return RefreshEconomics(
        before_system=before,
        before=_per_1000(_busy(usage[before], evaluate.dollars_per_hour), evaluate),
        after=_per_1000(challenger, evaluate),
        device_hours=spent.device_hours,
        dollars_per_hour=evaluate.dollars_per_hour,
        labels=spent.labels,
        dollars_per_label=params.dollars_per_label,
        refresh_dollars=refresh,
        rivals=tuple(_rival(name, costs, challenger, refresh, evaluate) for name, costs in rivals),
        requests_per_month=requests_per_month,
        confidence=evaluate.confidence,
    )


def _busy(usage: Usage, dollars_per_hour: float) -> NDArray[np.float64]:
    """Dollars of each row on a fully used machine, (rows,)."""
    return np.asarray(usage.seconds, dtype=np.float64) * dollars_per_hour / SECONDS_PER_HOUR


def _bought(usage: Usage, model: LargerModel) -> NDArray[np.float64]:
    """Dollars of each row at a price per token, (rows,)."""
    read = np.asarray(usage.prompt_tokens, dtype=np.float64) * model.dollars_per_million_prompt_tokens
    written = np.asarray(usage.completion_tokens, dtype=np.float64) * model.dollars_per_million_completion_tokens
    return np.asarray((read + written) / 1e6, dtype=np.float64)


def _per_1000(dollars_by_row: NDArray[np.float64], params: EvaluateParams) -> Estimate:
    costs = 1000 * dollars_by_row
    return bootstrap_mean(
        costs.tolist(),
        lowest=float(costs.min()),
        highest=float(costs.max()),
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )


def _rival(
    name: str, costs: NDArray[np.float64], challenger: NDArray[np.float64], refresh: float, params: EvaluateParams
) -> CostComparison:
    saved = _per_1000(costs - challenger, params)
    return CostComparison(
        name=name,
        dollars_per_1000=_per_1000(costs, params),
        saved_per_1000=saved,
        requests=_requests_until(refresh, saved.value),
        low=_requests_until(refresh, saved.high),
        high=_requests_until(refresh, saved.low),
    )


def _requests_until(refresh: float, saved_per_1000: float) -> float | None:
    """The number of requests until the savings equal the cost of the refresh; None for never, 0 if it was free."""
    if saved_per_1000 > 0:
        return refresh / saved_per_1000 * 1000
    return 0.0 if refresh == 0 and saved_per_1000 == 0 else None


def sentences(economics: RefreshEconomics) -> list[str]:
    """The costs and savings as sentences."""
    refresh = f"The refresh cost {dollars(economics.refresh_dollars)}: {_spent(economics)}."
    return [_before_and_after(economics), refresh, *(_paid_back(rival, economics) for rival in economics.rivals)]


def _before_and_after(economics: RefreshEconomics) -> str:
    before, after = _with_interval(economics.before), _with_interval(economics.after)
    return (
        f"1,000 requests cost {after} with the challenger and {before} with {phrase(economics.before_system)}, "
        f"which serves otherwise (n = {economics.after.n:,})."
    )


def _spent(economics: RefreshEconomics) -> str:
    labels = f"{economics.labels:,} label{'' if economics.labels == 1 else 's'}"
    return (
        f"{economics.device_hours:.3g} device hours at {dollars(economics.dollars_per_hour)} "
        f"and {labels} at {dollars(economics.dollars_per_label)}"
    )


def _paid_back(rival: CostComparison, economics: RefreshEconomics) -> str:
    against = f"Against {rival.name} ({_with_interval(rival.dollars_per_1000)} per 1,000 requests)"
    saved = rival.saved_per_1000
    if rival.requests is None:
        chance = "" if rival.low is None else f", with an interval from {requests_text(rival.low)} requests to never"
        return f"{against} it never pays for itself, because it saves nothing{chance} (n = {saved.n:,})."
    if rival.requests == 0:
        return f"{against} it has no cost to pay back (n = {saved.n:,})."
    span = f"{requests_text(rival.low)} to {requests_text(rival.high)}"
    return f"{against} it pays for itself after {requests_text(rival.requests)} requests ({span}, n = {saved.n:,}){_time(rival.requests, economics)}."


def _time(requests: float, economics: RefreshEconomics) -> str:
    monthly = economics.requests_per_month
    if not monthly:
        return ""
    days = max(1, math.ceil(requests / monthly * DAYS_PER_MONTH))
    return f": about {days:,} day{'' if days == 1 else 's'} at {monthly:,} requests a month"


def _with_interval(estimate: Estimate) -> str:
    if estimate.low == estimate.high:
        return dollars(estimate.value)
    return f"{dollars(estimate.value)} ({dollars(estimate.low)} to {dollars(estimate.high)})"


def requests_text(requests: float | None) -> str:
    """A number of requests to three significant figures; None is "never"."""
    if requests is None:
        return "never"
    whole = math.ceil(requests)
    return f"{round(whole, -max(0, len(str(whole)) - 3)):,}"


def dollars(amount: float) -> str:
    """Dollars to three significant figures, without scientific notation."""
    if amount == 0:
        return "$0"
    decimals = max(2, 2 - math.floor(math.log10(abs(amount))))
    sign = "\N{MINUS SIGN}" if amount < 0 else ""
    return f"{sign}${abs(amount):,.{decimals}f}"


def to_document(economics: RefreshEconomics) -> dict[str, Any]:
    """The JSON document of economics.json."""
    return asdict(economics)


def from_document(document: Mapping[str, Any]) -> RefreshEconomics:
    """Read what `to_document` wrote."""
    rivals = tuple(
        CostComparison(
            **{**rival, **{name: Estimate(**rival[name]) for name in ("dollars_per_1000", "saved_per_1000")}}
        )
        for rival in document["rivals"]
    )
    ends = {name: Estimate(**document[name]) for name in ("before", "after")}
    return RefreshEconomics(**{**document, **ends, "rivals": rivals})

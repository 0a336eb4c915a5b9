"""Costs of answers and of a refresh, and when a refresh pays for itself."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perpetune.evaluation.economics.equal_quality import (
    CheaperFrom,
    LargerModelUsage,
    SystemCost,
    cheaper_from,
    cheaper_from_document,
    cost_from,
    request_costs,
    system_costs,
)
from perpetune.evaluation.economics.machine import SECONDS_PER_HOUR, MachineUse, fully_used
from perpetune.evaluation.economics.usage import Usage
from perpetune.evaluation.economics.wording import (
    cheaper_sentence,
    dollars,
    dollars_between,
    machine_sentence,
    requests_text,
    right_answers_sentence,
)
from perpetune.evaluation.systems import phrase
from perpetune.generation.answer import Answer
from perpetune.params import EconomicsParams, EvaluateParams, LargerModel
from perpetune.policy.wording import significant
from perpetune.statistics.clustered_ratio import ClusteredRatio, clustered_ratio, difference
from perpetune.statistics.estimate import Estimate, Floats

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
class RefreshCost:
    """What a refresh used: device hours (summed over devices), and new labels."""

    device_hours: float
    labels: int


@dataclass(frozen=True)
class CostComparison:
    """The challenger's cost against an alternative, and the break-even of the refresh.

    `saved_per_1000` is the alternative's cost less the challenger's, on the same rows. The refresh pays for itself after
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
    larger model of params.yaml, if any. `machine` says for which part of the paid time it works; `systems` have the cost
    beside the accuracy, on the same `rows`. Intervals have the level `confidence`; the `n` of costs are batches.
    `machine` is None in older records.
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
    machine: MachineUse | None = None
    systems: tuple[SystemCost, ...] = ()
    cheaper_from: CheaperFrom | None = None
    rows: int = 0

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
        return flat | self._equal_quality()

    def _equal_quality(self) -> dict[str, float]:
        flat = {"economics/utilisation": self.machine.utilisation} if self.machine else {}
        for cost in self.systems:
            flat |= _named(f"economics/{cost.system}/dollars_per_1000", cost.dollars_per_1000)
            if cost.accuracy is not None:
                flat |= _named(f"economics/{cost.system}/score", cost.accuracy)
            if cost.dollars_per_1000_right is not None:
                flat |= _named(f"economics/{cost.system}/dollars_per_1000_right", cost.dollars_per_1000_right)
        if self.cheaper_from is not None and self.cheaper_from.possible:
            flat |= _named("economics/cheaper_from_requests_per_day", self.cheaper_from.requests_per_day)
        return flat


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def refresh_economics(
    usage: Mapping[str, Usage],
    spent: RefreshCost,
    params: EconomicsParams,
    evaluate: EvaluateParams,
    requests_per_month: int | None,
    machine: MachineUse | None = None,
    recorded: Sequence[float | None] = (),
) -> RefreshEconomics:
    """The costs and savings of a refresh, from each system's usage on the same rows.

    `usage` has "challenger", "base" and, if they answered, "champion" and "few-shot". A larger model is priced by the
    tokens of the prompted base, counted with our tokenizer; `recorded` are the scores of its recorded answers to the rows
    (None: no answer). Without a `machine`, one that always works is assumed. Intervals take a batch as one observation;
    they have no width if all rows cost the same, or if there is one batch.
    """
    machine = machine or fully_used(evaluate.dollars_per_hour)
    prompted = "few-shot" if "few-shot" in usage else "base"
    before = "champion" if "champion" in usage else prompted
    refresh = spent.device_hours * evaluate.dollars_per_hour + spent.labels * params.dollars_per_label
    costs = {system: _per_1000(*request_costs(used, machine)) for system, used in usage.items()}
    larger = _larger(usage[prompted], params.larger_model, recorded) if params.larger_model else None
    rivals = [(phrase(prompted), costs[prompted])]
    if larger is not None:
        with_examples = " with the same examples" if prompted == "few-shot" else ""
        bought = np.array(larger.dollars)
        rivals.append((f"{larger.name}{with_examples}", _per_1000(bought, range(len(bought)))))
    return RefreshEconomics(
        before_system=before,
        before=costs[before].estimate(evaluate.confidence, lowest=0),
        after=costs["challenger"].estimate(evaluate.confidence, lowest=0),
        device_hours=spent.device_hours,
        dollars_per_hour=evaluate.dollars_per_hour,
        labels=spent.labels,
        dollars_per_label=params.dollars_per_label,
        refresh_dollars=refresh,
        rivals=tuple(_rival(name, cost, costs["challenger"], refresh, evaluate) for name, cost in rivals),
        requests_per_month=requests_per_month,
        confidence=evaluate.confidence,
        machine=machine,
        systems=system_costs(usage, {name: phrase(name) for name in usage}, machine, larger, evaluate),
        cheaper_from=cheaper_from(usage["challenger"], machine, larger, evaluate) if larger else None,
        rows=len(usage["challenger"].seconds),
    )


def _larger(usage: Usage, model: LargerModel, recorded: Sequence[float | None]) -> LargerModelUsage:
    """The larger model at its price per token."""
    read = np.asarray(usage.prompt_tokens, dtype=np.float64) * model.dollars_per_million_prompt_tokens
    written = np.asarray(usage.completion_tokens, dtype=np.float64) * model.dollars_per_million_completion_tokens
    return LargerModelUsage(model.name, tuple(((read + written) / 1e6).tolist()), tuple(recorded))


def _per_1000(dollars_by_row: Floats, clusters: Sequence[Hashable]) -> ClusteredRatio:
    return clustered_ratio(1000 * dollars_by_row, np.ones(len(dollars_by_row)), clusters)


def _rival(
    name: str, cost: ClusteredRatio, challenger: ClusteredRatio, refresh: float, params: EvaluateParams
) -> CostComparison:
    saved = difference(cost, challenger, params.confidence)
    return CostComparison(
        name=name,
        dollars_per_1000=cost.estimate(params.confidence, lowest=0),
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
    paid_back = [_paid_back(rival, economics) for rival in economics.rivals]
    return [_before_and_after(economics), refresh, *paid_back, *_equal_quality(economics)]


def _equal_quality(economics: RefreshEconomics) -> list[str]:
    """() in older records."""
    if economics.machine is None:
        return []
    found = [right_answers_sentence(economics.systems)]
    if economics.cheaper_from is not None:
        found.append(cheaper_sentence(economics.cheaper_from, economics.systems[-1].name, economics.machine))
    return [sentence for sentence in (*found, machine_sentence(economics.machine)) if sentence]


def _before_and_after(economics: RefreshEconomics) -> str:
    before, after = dollars_between(economics.before), dollars_between(economics.after)
    return (
        f"1,000 requests cost {after} with the challenger and {before} with {phrase(economics.before_system)}, "
        f"which serves otherwise ({_counted(economics.after, economics)})."
    )


def _counted(estimate: Estimate, economics: RefreshEconomics) -> str:
    """The rows, and the batches in which they were answered."""
    if estimate.n in (economics.rows, 0) or not economics.rows:
        return f"n = {estimate.n:,}"
    batches = "1 batch, so without an interval" if estimate.n == 1 else f"{estimate.n:,} batches"
    return f"n = {economics.rows:,} rows in {batches}"


def _spent(economics: RefreshEconomics) -> str:
    labels = f"{economics.labels:,} label{'' if economics.labels == 1 else 's'}"
    return (
        f"{significant(economics.device_hours)} device hours at {dollars(economics.dollars_per_hour)} "
        f"and {labels} at {dollars(economics.dollars_per_label)}"
    )


def _paid_back(rival: CostComparison, economics: RefreshEconomics) -> str:
    against = f"Against {rival.name} ({dollars_between(rival.dollars_per_1000)} per 1,000 requests)"
    counted = _counted(rival.saved_per_1000, economics)
    if rival.requests is None:
        chance = "" if rival.low is None else f", with an interval from {requests_text(rival.low)} requests to never"
        return f"{against} it never pays for itself, because it saves nothing{_idle(rival, economics)}{chance} ({counted})."
    if rival.requests == 0:
        return f"{against} it has no cost to pay back ({counted})."
    low, high = requests_text(rival.low), requests_text(rival.high)
    span = "" if low == high else f"{low} to {high}, "
    return f"{against} it pays for itself after {requests_text(rival.requests)} requests ({span}{counted}){_time(rival.requests, economics)}."


def _idle(rival: CostComparison, economics: RefreshEconomics) -> str:
    """Why a faster system on a machine that idles saves nothing."""
    machine = economics.machine
    if machine is None or machine.source != "measured" or rival.saved_per_1000.value != 0:
        return ""
    return " on a machine that is paid while it waits"


def _time(requests: float, economics: RefreshEconomics) -> str:
    monthly = economics.requests_per_month
    if not monthly:
        return ""
    days = max(1, math.ceil(requests / monthly * DAYS_PER_MONTH))
    return f": about {days:,} day{'' if days == 1 else 's'} at {monthly:,} requests a month"


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
    later = {
        "machine": MachineUse(**document["machine"]) if document.get("machine") else None,
        "systems": tuple(cost_from(each) for each in document.get("systems", ())),
        "cheaper_from": cheaper_from_document(document.get("cheaper_from")),
    }
    return RefreshEconomics(**{**document, **ends, **later, "rivals": rivals})

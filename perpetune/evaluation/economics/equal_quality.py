"""Cost beside accuracy: what a request and a right answer cost with each system, and when the own machine is cheaper."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perpetune.evaluation.economics.machine import SECONDS_PER_DAY, MachineUse
from perpetune.evaluation.economics.usage import Usage
from perpetune.params import EvaluateParams
from perpetune.statistics.clustered_ratio import clustered_ratio
from perpetune.statistics.distributions import t_quantile
from perpetune.statistics.estimate import Estimate, Floats, estimate_mean
from perpetune.statistics.paired import compare

LARGER = "larger_model"  # the system that `economics.larger_model` prices
OWN = ("base", "few-shot", "champion", "challenger")


@dataclass(frozen=True)
class SystemCost:
    """A system's US dollars per 1,000 requests and per 1,000 right answers, beside its accuracy, on the same rows.

    `accuracy` is the mean score (token F1 or slot F1 for free text, whose sum are the right answers); None if the system's
    answers are not known. `dollars_per_1000_right` is None then, or if no answer is right.
    """

    system: str
    name: str
    dollars_per_1000: Estimate
    accuracy: Estimate | None
    dollars_per_1000_right: Estimate | None


@dataclass(frozen=True)
class CheaperFrom:
    """From how many requests a day the challenger's machine, always on, is cheaper per right answer than the larger model.

    It is not cheaper at any rate if that is more than the machine can answer: its `capacity` in requests a day, None if its
    answers take no time. `difference` is the challenger's accuracy less the larger model's, on the same rows; None if the
    latter's answers are not known: equal accuracy is assumed then.
    """

    requests_per_day: Estimate
    capacity: float | None
    difference: Estimate | None

    @property
    def possible(self) -> bool:
        """Whether the machine can answer so many."""
        return self.capacity is None or self.requests_per_day.value <= self.capacity

    @property
    def worse(self) -> bool:
        """Whether the challenger is shown to be less accurate."""
        return self.difference is not None and self.difference.high < 0


@dataclass(frozen=True)
class LargerModelUsage:
    """The larger model's US dollars for each row, and its score on each; None for rows without a recorded answer."""

    name: str
    dollars: tuple[float, ...]
    scores: tuple[float | None, ...] = ()

    @property
    def answered(self) -> list[int]:
        return [row for row, score in enumerate(self.scores) if score is not None]


def system_costs(
    usage: Mapping[str, Usage],
    names: Mapping[str, str],
    machine: MachineUse,
    larger: LargerModelUsage | None,
    params: EvaluateParams,
) -> tuple[SystemCost, ...]:
    """The cost of each own system by its seconds of the machine, and of the larger model by its price per token.

    The larger model's cost is of all rows; that of its right answers of those with a recorded answer.
    """
    own = [
        _system_cost(system, names[system], *request_costs(used, machine), used.scores, params)
        for system, used in usage.items()
    ]
    return (*own, *([_larger_cost(larger, params)] if larger else ()))


def request_costs(used: Usage, machine: MachineUse) -> tuple[Floats, Sequence[Hashable]]:
    """The cost of each row, and what counts as one observation: a batch, or a row if all rows cost the same."""
    dollars = machine.dollars(used.of_seconds)
    return dollars, range(len(dollars)) if np.ptp(dollars) == 0 else used.clusters


def _system_cost(
    system: str,
    name: str,
    dollars: Floats,
    clusters: Sequence[Hashable],
    scores: Sequence[float],
    params: EvaluateParams,
) -> SystemCost:
    right = np.asarray(scores, dtype=np.float64)
    return SystemCost(
        system=system,
        name=name,
        dollars_per_1000=clustered_ratio(1000 * dollars, np.ones(len(dollars)), clusters).estimate(
            params.confidence, lowest=0
        ),
        accuracy=_accuracy(scores, params) if scores else None,
        dollars_per_1000_right=clustered_ratio(1000 * dollars, right, clusters).estimate(params.confidence, lowest=0)
        if right.sum() > 0
        else None,
    )


def _larger_cost(larger: LargerModelUsage, params: EvaluateParams) -> SystemCost:
    dollars, rows = np.asarray(larger.dollars), larger.answered
    everywhere = _system_cost(LARGER, larger.name, dollars, range(len(dollars)), (), params)
    if not rows:
        return everywhere
    scores = [larger.scores[row] or 0.0 for row in rows]
    there = _system_cost(LARGER, larger.name, dollars[rows], range(len(rows)), scores, params)
    return SystemCost(LARGER, larger.name, everywhere.dollars_per_1000, there.accuracy, there.dollars_per_1000_right)


def _accuracy(scores: Sequence[float], params: EvaluateParams) -> Estimate:
    return estimate_mean(scores, confidence=params.confidence, samples=params.bootstrap_samples, seed=params.seed)


def cheaper_from(
    challenger: Usage, machine: MachineUse, larger: LargerModelUsage, params: EvaluateParams
) -> CheaperFrom | None:
    """When the challenger is cheaper per right answer; None if the larger model is free or either is never right.

    A machine that is always on costs its day, whatever it answers. The larger model's right answers cost as much at
    dollars a day / dollars a request of the larger model * (its accuracy / the challenger's) requests a day.
    """
    rows = larger.answered if challenger.scores else []
    prices = np.array([larger.dollars[row] for row in rows] or larger.dollars)
    ours = np.array([challenger.scores[row] for row in rows])
    theirs = np.array([larger.scores[row] or 0.0 for row in rows])
    if prices.sum() <= 0 or (rows and (ours.sum() <= 0 or theirs.sum() <= 0)):
        return None
    seconds = float(challenger.of_seconds.mean())
    return CheaperFrom(
        requests_per_day=_balance(machine.dollars_per_day, prices, ours, theirs, params.confidence),
        capacity=SECONDS_PER_DAY / seconds if seconds > 0 else None,
        difference=_difference(theirs.tolist(), ours.tolist(), params),
    )


def _balance(dollars_per_day: float, prices: Floats, ours: Floats, theirs: Floats, confidence: float) -> Estimate:
    """The requests a day, with an interval of its logarithm by the delta method and Student's t over rows."""
    rows = len(prices)
    requests = dollars_per_day / float(prices.mean()) * (float(theirs.sum() / ours.sum()) if len(ours) else 1.0)
    if rows < 2:
        return Estimate(requests, requests, requests, rows)
    influence = (theirs / theirs.sum() - ours / ours.sum() if len(ours) else 0.0) - prices / prices.sum()
    spread = math.sqrt(rows / (rows - 1) * math.fsum((influence - influence.mean()) ** 2))
    factor = math.exp(t_quantile((1 + confidence) / 2, rows - 1) * spread)
    return Estimate(requests, requests / factor, requests * factor, rows)


def _difference(theirs: Sequence[float], ours: Sequence[float], params: EvaluateParams) -> Estimate | None:
    if not ours:
        return None
    found = compare(theirs, ours, confidence=params.confidence, samples=params.bootstrap_samples, seed=params.seed)
    return Estimate(found.difference, found.low, found.high, found.n)


def cost_from(document: Mapping[str, Any]) -> SystemCost:
    """Read a SystemCost from its JSON object."""
    estimates = ("dollars_per_1000", "accuracy", "dollars_per_1000_right")
    return SystemCost(**{**document, **{name: _estimate(document[name]) for name in estimates}})


def cheaper_from_document(document: Mapping[str, Any] | None) -> CheaperFrom | None:
    """Read a CheaperFrom from its JSON object."""
    if document is None:
        return None
    requests = Estimate(**document["requests_per_day"])
    return CheaperFrom(requests, document["capacity"], _estimate(document["difference"]))


def _estimate(document: Mapping[str, Any] | None) -> Estimate | None:
    return Estimate(**document) if document else None

"""What training and serving cost this month, from the refreshes' runs and the prediction log, against the budget."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perpetune.evaluation.economics.machine import SECONDS_PER_HOUR
from perpetune.evaluation.economics.wording import dollars
from perpetune.params import Params


@dataclass(frozen=True)
class MonthCosts:
    """US dollars and hours since the first of the month, in UTC; `training_hours` is None if MLflow did not say.

    `serving_hours` are those of one machine since the month's first request, or, if `economics.utilisation` is set, those
    that the requests worked for, divided by it. `budget` is `refresh.gpu_hours_per_month`: device hours of training in 30 days.
    """

    month: str
    dollars_per_hour: float
    training_hours: float | None
    serving_hours: float
    budget: float | None

    @property
    def total(self) -> float:
        return self.dollars_per_hour * ((self.training_hours or 0.0) + self.serving_hours)

    def line(self) -> str:
        """As "$62.40 in November: training $1.20 (12.0 of 100 device hours), serving $61.20 (612 h)"."""
        training = (
            "training not known" if self.training_hours is None else f"training {self._training(self.training_hours)}"
        )
        serving = f"serving {self._price(self.serving_hours)} ({self.serving_hours:,.0f} h)"
        return f"{dollars(self.total)} in {self.month}: {training}, {serving}"

    def _training(self, hours: float) -> str:
        budget = f" of {self.budget:g}" if self.budget is not None else ""
        return f"{self._price(hours)} ({hours:,.1f}{budget} device hours)"

    def _price(self, hours: float) -> str:
        return dollars(hours * self.dollars_per_hour)


def month_start(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_costs(
    params: Params, now: datetime, first: datetime | None, busy_seconds: float, training_hours: float | None
) -> MonthCosts:
    """`first` is the month's first request; `busy_seconds` are those of its requests, which count if machines scale."""
    ratio = params.economics.utilisation
    always_on = (now - first).total_seconds() if first is not None else 0.0
    seconds = always_on if ratio is None else busy_seconds / ratio
    return MonthCosts(
        month=f"{now:%B}",
        dollars_per_hour=params.evaluate.dollars_per_hour,
        training_hours=training_hours,
        serving_hours=seconds / SECONDS_PER_HOUR,
        budget=params.refresh.gpu_hours_per_month,
    )

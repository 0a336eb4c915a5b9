"""What training and serving cost this month, from the refreshes' runs and the prediction log, against the budget."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perpetune.evaluation.economics.machine import SECONDS_PER_HOUR
from perpetune.evaluation.economics.wording import dollars
from perpetune.params import Params


@dataclass(frozen=True)
class MonthCosts:
    """US dollars and hours since the first of the month, in UTC; those that could not be read are None.

    `serving_hours` are those of one machine since the month's first request, or, if `economics.utilisation` is set, those
    that the requests worked for, divided by it. `budget` is `refresh.gpu_hours_per_month`: device hours of training in 30 days.
    """

    month: str
    dollars_per_hour: float
    training_hours: float | None
    serving_hours: float | None
    budget: float | None

    @property
    def total(self) -> float:
        return self.dollars_per_hour * ((self.training_hours or 0.0) + (self.serving_hours or 0.0))

    def line(self) -> str:
        """As "$62.40 in November: training $1.20 (12.0 of 100 device hours), serving $61.20 (612 h)"."""
        training = "not known" if self.training_hours is None else self._training(self.training_hours)
        serving = "not known" if self.serving_hours is None else self._serving(self.serving_hours)
        least = "at least " if None in (self.training_hours, self.serving_hours) else ""
        return f"{least}{dollars(self.total)} in {self.month}: training {training}, serving {serving}"

    def _serving(self, hours: float) -> str:
        return f"{self._price(hours)} ({hours:,.0f} h)"

    def _training(self, hours: float) -> str:
        budget = f" of {self.budget:g}" if self.budget is not None else ""
        return f"{self._price(hours)} ({hours:,.1f}{budget} device hours)"

    def _price(self, hours: float) -> str:
        return dollars(hours * self.dollars_per_hour)


def month_start(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_costs(
    params: Params, now: datetime, served: tuple[datetime | None, float] | None, training_hours: float | None
) -> MonthCosts:
    """`served` are the time of the month's first request, and the seconds of all, which count if machines scale.

    None in place of `served` or `training_hours`: they could not be read.
    """
    return MonthCosts(
        month=f"{now:%B}",
        dollars_per_hour=params.evaluate.dollars_per_hour,
        training_hours=training_hours,
        serving_hours=None if served is None else _serving_seconds(params, now, *served) / SECONDS_PER_HOUR,
        budget=params.refresh.gpu_hours_per_month,
    )


def _serving_seconds(params: Params, now: datetime, first: datetime | None, busy: float) -> float:
    ratio = params.economics.utilisation
    if ratio is not None:
        return busy / ratio
    return (now - first).total_seconds() if first is not None else 0.0

"""What a request costs on a machine that is paid by the hour, whether it works or waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perpetune.statistics.estimate import Floats

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 24 * SECONDS_PER_HOUR


@dataclass(frozen=True)
class MachineUse:
    """The ratio of the paid time in which the machine works, from 0 to 1, and its price in US dollars an hour.

    "measured": one machine is always on, and answered `requests_per_day` over `days` of the prediction log. "setting":
    machines grow and shrink with the traffic and work this ratio of the time (`economics.utilisation`). "assumed": the
    log holds less than a day, so that a machine that always works is assumed.
    """

    utilisation: float
    dollars_per_hour: float
    source: Literal["measured", "setting", "assumed"] = "assumed"
    requests_per_day: float | None = None
    days: float | None = None

    @property
    def dollars_per_day(self) -> float:
        """The price of one machine that is always on."""
        return 24 * self.dollars_per_hour

    def dollars(self, seconds: Floats) -> Floats:
        """The cost of each request that takes these seconds of the machine, (requests,).

        A machine that was measured costs the same by the day whatever it runs: its requests share that price, unless they
        take more time than there is, when they pay for more machines.
        """
        if self.source != "measured" or not self.requests_per_day:
            return np.asarray(seconds / self.utilisation * self.dollars_per_hour / SECONDS_PER_HOUR)
        return np.asarray(self._shared(seconds) * self.dollars_per_hour / SECONDS_PER_HOUR)

    def idles(self, seconds: Floats) -> bool:
        """Whether requests that take these seconds leave a measured machine idle, so that faster ones save nothing."""
        return bool(self.requests_per_day) and float(seconds.mean()) < SECONDS_PER_DAY / (self.requests_per_day or 1)

    def _shared(self, seconds: Floats) -> Floats:
        paid = SECONDS_PER_DAY / (self.requests_per_day or 1)
        return np.full(len(seconds), paid) if self.idles(seconds) else seconds


def fully_used(dollars_per_hour: float) -> MachineUse:
    """A machine that always works."""
    return MachineUse(1.0, dollars_per_hour)

"""The policies without monitoring: never retrain, and retrain on a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from perpetune.replay.policies.policy import Observation, RetrainCall, cron_times


@dataclass(frozen=True)
class Never:
    """Never retrains."""

    name: str = "never"
    gated: bool = False

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return iter(())

    def check(self, observation: Observation) -> RetrainCall | None:
        return None


@dataclass(frozen=True)
class Scheduled:
    """Retrains at every time of `cron`, and releases every trained model."""

    cron: str
    name: str = "every week"
    gated: bool = False

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return cron_times(self.cron, begins, ends)

    def check(self, observation: Observation) -> RetrainCall | None:
        return RetrainCall("Scheduled refresh.")

"""The two policies that look at nothing: never retrain, and retrain by the calendar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from perpetune.replay.policies.policy import Observation, RetrainCall, moments


@dataclass(frozen=True)
class Never:
    name: str = "never"
    gated: bool = False

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return iter(())

    def check(self, observation: Observation) -> RetrainCall | None:
        return None


@dataclass(frozen=True)
class Scheduled:
    """Retrains at every moment of `cron`, and releases what it trained."""

    cron: str
    name: str = "every week"
    gated: bool = False

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return moments(self.cron, begins, ends)

    def check(self, observation: Observation) -> RetrainCall | None:
        return RetrainCall("The schedule said so.")

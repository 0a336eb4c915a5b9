"""The two policies that look at nothing: never retrain, and retrain by the calendar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from perpetune.replay.policies.policy import Call, Sight, moments


@dataclass(frozen=True)
class Never:
    name: str = "never"
    gated: bool = False

    def looks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return iter(())

    def look(self, sight: Sight) -> Call | None:
        return None


@dataclass(frozen=True)
class Scheduled:
    """Retrains at every moment of `cron`, and releases what it trained."""

    cron: str
    name: str = "every week"
    gated: bool = False

    def looks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return moments(self.cron, begins, ends)

    def look(self, sight: Sight) -> Call | None:
        return Call("The schedule said so.")

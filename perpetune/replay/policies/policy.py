"""What a policy is: when it looks, and whether what it sees calls for a refresh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Protocol

from cronsim import CronSim, CronSimError

from perpetune.errors import PerpetuneError
from perpetune.policy.unchanged import Trigger
from perpetune.replay.models.learner import Model
from perpetune.replay.models.model_cache import ScoredAnswer


@dataclass(frozen=True)
class Champion:
    """The model that answers, since when, and its marks on the holdouts of the refresh that made it."""

    model: Model
    since: datetime
    frozen: tuple[ScoredAnswer, ...]
    recent: tuple[ScoredAnswer, ...]


@dataclass(frozen=True)
class Refresh:
    """One refresh: why it was started, what came of it, and what it took.

    `outcome` is the gate's verdict, or "released" where the policy has no gate; `reason` is its decisive sentence.
    """

    time: datetime
    why: str
    outcome: str
    reason: str
    train_rows: int
    seconds: float
    trigger: Trigger = "schedule"

    @property
    def promoted(self) -> bool:
        return self.outcome in ("promote", "released")


@dataclass(frozen=True)
class Observation:
    """What can be seen at a look.

    `answered` are all answers of the present champion, oldest first; `judged` are the scores of those whose labels
    became known since the last look, in the order in which they did. `labels_since_refresh` counts all that have become
    known since the data of the last refresh, or of the first model, were put together.
    """

    now: datetime
    champion: Champion
    answered: Sequence[ScoredAnswer]
    judged: Sequence[float]
    refreshes: Sequence[Refresh]
    labels_since_refresh: int = 0


@dataclass(frozen=True)
class RetrainCall:
    """A refresh is called for: why, and by what."""

    why: str
    trigger: Trigger = "schedule"


class Policy(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def gated(self) -> bool:
        """Whether its challengers must pass the promotion gate; else whatever was trained is released."""

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        """The moments of its looks, in order."""

    def check(self, observation: Observation) -> RetrainCall | None:
        """What calls for a refresh now, or None."""


def unsuccessful(refreshes: Sequence[Refresh]) -> int:
    """Those that decay has started since the last one that was promoted."""
    since = takewhile(lambda each: not each.promoted, reversed(refreshes))
    return sum(each.trigger == "decay" for each in since)


def moments(cron: str, begins: datetime, ends: datetime) -> Iterator[datetime]:
    """The moments of a schedule behind `begins` and up to `ends`. Raises PerpetuneError where it is none."""
    try:
        schedule = CronSim(cron, begins)
    except CronSimError as fault:
        raise PerpetuneError(
            f"{cron!r} is no schedule: {fault}", where="params.yaml", do='write it like "0 3 * * 1"'
        ) from None
    for moment in schedule:
        if moment > ends:
            return
        yield moment

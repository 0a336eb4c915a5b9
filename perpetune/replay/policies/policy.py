"""The protocol of retraining policies: when they check, and whether they start a refresh."""

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
    """The model that serves, since when, and its scored answers on the holdouts of its refresh."""

    model: Model
    since: datetime
    frozen: tuple[ScoredAnswer, ...]
    recent: tuple[ScoredAnswer, ...]


@dataclass(frozen=True)
class Refresh:
    """A simulated refresh.

    `outcome` is the gate's verdict, or "released" if the policy has no gate; `reason` is the decisive reason of the
    verdict, `trigger_reason` why the refresh started. `labels` is the number of labels known then, `since_fall` those
    since scores began to fall.
    """

    time: datetime
    trigger_reason: str
    outcome: str
    reason: str
    train_rows: int
    seconds: float
    trigger: Trigger = "schedule"
    labels: int = 0
    since_fall: int | None = None

    @property
    def promoted(self) -> bool:
        return self.outcome in ("promote", "released")


@dataclass(frozen=True)
class Observation:
    """What a policy knows at a check.

    `answered` are all answers of the current champion, oldest first; `new_scores` are the scores of those whose labels
    became known since the last check, in that order. `labels_since_refresh` counts the labels since the data of the last
    refresh, or of the first model, were curated.
    """

    now: datetime
    champion: Champion
    answered: Sequence[ScoredAnswer]
    new_scores: Sequence[float]
    refreshes: Sequence[Refresh]
    labels_since_refresh: int = 0


@dataclass(frozen=True)
class RetrainCall:
    """A policy's call for a refresh; `since_fall`: the labels since scores began to fall, if they did."""

    reason: str
    trigger: Trigger = "schedule"
    since_fall: int | None = None


class Policy(Protocol):
    """A retraining policy."""

    @property
    def name(self) -> str: ...

    @property
    def gated(self) -> bool:
        """Whether challengers must pass the promotion gate; otherwise every trained model is released."""

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        """The times of its checks, in order."""

    def check(self, observation: Observation) -> RetrainCall | None:
        """A call for a refresh, or None."""


def unsuccessful(refreshes: Sequence[Refresh]) -> int:
    """The number of refreshes for decay since the last promoted one."""
    since = takewhile(lambda each: not each.promoted, reversed(refreshes))
    return sum(each.trigger == "decay" for each in since)


def cron_times(cron: str, begins: datetime, ends: datetime) -> Iterator[datetime]:
    """The times of a cron schedule after `begins` and up to `ends`. Raises PerpetuneError if `cron` is invalid."""
    try:
        schedule = CronSim(cron, begins)
    except CronSimError as fault:
        raise PerpetuneError(
            f"{cron!r} is not a cron schedule: {fault}", where="params.yaml", do='write it as in "0 3 * * 1"'
        ) from None
    for time in schedule:
        if time > ends:
            return
        yield time

"""What is on record of one version, from its trigger to its release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from perpetune.curation.difference import Difference
from perpetune.explain.numbers import Numbers
from perpetune.policy.decision.headline import headline
from perpetune.policy.decision.next_step import next_steps
from perpetune.policy.decision.record import Decision
from perpetune.statistics.estimate import Estimate


@dataclass(frozen=True)
class Trigger:
    """Who or what asked for the refresh (manual, schedule, decay), why, and when it began."""

    kind: str
    reason: str
    time: datetime


@dataclass(frozen=True)
class Data:
    """What was trained on: its DVC version and the rows of each split.

    `previous` is the version of the model that the difference is from. Where there is no difference to show,
    `difference` is None and `note` says why.
    """

    version: str
    rows: Mapping[str, int]
    previous: str | None
    difference: Difference | None
    note: str


@dataclass(frozen=True)
class Training:
    """What was trained and how it went; a loss curve has the steps as keys."""

    facts: Mapping[str, str]
    train_loss: Mapping[int, float]
    validation_loss: Mapping[int, float]


@dataclass(frozen=True)
class Scores:
    """The systems on the rows of one holdout, with intervals of `level`; `metric` is accuracy, slot_f1 or token_f1."""

    holdout: str
    metric: str
    level: float
    systems: Mapping[str, Estimate]


@dataclass(frozen=True)
class VerdictSummary:
    """A decision record and its numbers."""

    decision: Decision
    numbers: Numbers


@dataclass(frozen=True)
class Approval:
    """What a person said to a promotion, and who it was."""

    state: str
    by: str
    comment: str


@dataclass(frozen=True)
class Event:
    """Something that became of the version; `time` is None where none was recorded."""

    time: datetime | None
    what: str
    why: str


@dataclass(frozen=True)
class Reproduction:
    """What it takes to train the version again: commands, and the ids that they find it by."""

    commands: tuple[str, ...]
    ids: Mapping[str, str]


@dataclass(frozen=True)
class VersionReport:
    """One version. `verdicts` are newest first, and none before the first; `links` have titles as keys."""

    task: str
    version: str
    aliases: tuple[str, ...]
    written: datetime
    trigger: Trigger
    data: Data
    training: Training
    scores: tuple[Scores, ...]
    verdicts: tuple[VerdictSummary, ...]
    approval: Approval | None
    costs: tuple[str, ...]
    events: tuple[Event, ...]
    repeat: Reproduction
    links: Mapping[str, str]

    @property
    def outcome(self) -> str:
        return self.verdicts[0].decision.outcome if self.verdicts else "undecided"

    @property
    def line(self) -> str:
        """The newest verdict in one line."""
        return headline(self.verdicts[0].decision) if self.verdicts else "No verdict on this version is on record."

    @property
    def reason(self) -> str:
        """The decisive reason of the newest verdict, one sentence."""
        return self.verdicts[0].decision.reason if self.verdicts else ""

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do after the newest verdict, with the commands."""
        return next_steps(self.verdicts[0].decision) if self.verdicts else ()

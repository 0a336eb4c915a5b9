"""The report on one version, from its trigger to its release."""

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
    """The trigger of the refresh (manual, schedule, decay), its reason, and the start time."""

    kind: str
    reason: str
    time: datetime


@dataclass(frozen=True)
class Data:
    """The data: its DVC version and the rows of each split.

    `difference` is against the data of the model version `previous`. If there is none, `difference` is None and `note`
    says why.
    """

    version: str
    rows: Mapping[str, int]
    previous: str | None
    difference: Difference | None
    note: str


@dataclass(frozen=True)
class Training:
    """Training settings and results; loss curves are by step."""

    facts: Mapping[str, str]
    train_loss: Mapping[int, float]
    validation_loss: Mapping[int, float]


@dataclass(frozen=True)
class Scores:
    """Scores of all systems on one holdout, with intervals of `level`; `metric` is accuracy, slot_f1 or token_f1."""

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
    """A person's decision on a promotion."""

    state: str
    by: str
    comment: str


@dataclass(frozen=True)
class Event:
    """An event in the history of the version; `time` is None if it was not recorded."""

    time: datetime | None
    what: str
    why: str


@dataclass(frozen=True)
class Reproduction:
    """How to train the version again: commands, and the ids of everything they use."""

    commands: tuple[str, ...]
    ids: Mapping[str, str]


@dataclass(frozen=True)
class VersionReport:
    """One version. `verdicts` are newest first; `links` are by title."""

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
        return headline(self.verdicts[0].decision) if self.verdicts else "There is no verdict on this version."

    @property
    def reason(self) -> str:
        """The main reason of the newest verdict, one sentence; "" without one."""
        return self.verdicts[0].decision.reason if self.verdicts else ""

    @property
    def next_steps(self) -> tuple[str, ...]:
        """The next steps after the newest verdict, with commands."""
        return next_steps(self.verdicts[0].decision) if self.verdicts else ()

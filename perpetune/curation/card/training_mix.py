"""Recent and older rows of the training split."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from perpetune.curation.quarantine import Quarantined
from perpetune.curation.steps.mix import NOT_REPLAYED, recent_of
from perpetune.params import MixParams
from perpetune.records import Example


@dataclass(frozen=True)
class TrainingMix:
    """The training rows: recent traffic and older rows; `replay` as in params.yaml."""

    recent: int
    older: int
    not_replayed: int
    replay: float | None

    @property
    def sentence(self) -> str:
        parts = f"The training split has {self.recent:,} recent rows of labelled traffic and {self.older:,} older rows"
        if not self.recent:
            return f"The training split has no recent labelled traffic, only {self.older:,} older rows."
        if not self.not_replayed:
            return f"{parts}."
        return f"{parts}; {self.not_replayed:,} more older rows are not replayed (mix.replay: {self.replay:g})."


def training_mix(
    train: Collection[Example], quarantined: Mapping[str, Iterable[Quarantined]], params: MixParams
) -> TrainingMix:
    recent = sum(map(recent_of(train, params), train))
    quarantine = sum(row.reason == NOT_REPLAYED for rows in quarantined.values() for row in rows)
    return TrainingMix(recent, len(train) - recent, quarantine, params.replay)

"""Recent and older rows of the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perpetune.curation.quarantine import Quarantined
from perpetune.curation.steps.mix import NOT_REPLAYED, recent_and_older
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
    train: Sequence[Example], quarantined: Mapping[str, Sequence[Quarantined]], params: MixParams
) -> TrainingMix:
    recent, older = recent_and_older(train, params)
    quarantine = sum(row.reason == NOT_REPLAYED for rows in quarantined.values() for row in rows)
    return TrainingMix(len(recent), len(older), quarantine, params.replay)

"""The content of a card."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from perpetune.curation.card.dropped import QuarantineReason, reasons_of, rejected_reasons
from perpetune.curation.card.languages import Language
from perpetune.curation.card.sources import Source, sources_of
from perpetune.curation.card.split_summary import SplitSummary, split_summary
from perpetune.curation.card.steps import Step, steps_done
from perpetune.curation.card.training_mix import TrainingMix, training_mix
from perpetune.curation.card.warnings import warnings_of
from perpetune.curation.duplicates.summary import NearSummary
from perpetune.curation.quarantine import Quarantined, Rejected
from perpetune.curation.steps.step_files import StepFacts
from perpetune.curation.suspects import LabelErrorSummary
from perpetune.params import MixParams, TaskParams
from perpetune.records import Example


@dataclass(frozen=True)
class Card:
    """The content of the card. `version` is DVC's data version; `warnings` come first."""

    task: str
    kind: str
    version: str
    steps: tuple[Step, ...]
    sources: tuple[Source, ...]
    splits: tuple[SplitSummary, ...]
    quarantine: tuple[QuarantineReason, ...]
    training_mix: TrainingMix
    warnings: tuple[str, ...]
    near: NearSummary | None = None
    label_errors: LabelErrorSummary | None = None
    languages: tuple[Language, ...] = ()

    @property
    def labels(self) -> list[str]:
        """All labels, most frequent first."""
        names = {label for split in self.splits for label in split.labels}
        return sorted(names, key=lambda label: (-self.total(label), label))

    def total(self, label: str) -> int:
        """The number of rows with the label, over all splits."""
        return sum(split.labels.get(label, 0) for split in self.splits)


def describe(
    task: TaskParams,
    version: str,
    fetched: Mapping[str, int],
    rejected: Collection[Rejected],
    quarantined: Mapping[str, Collection[Quarantined]],
    splits: Mapping[str, Collection[Example]],
    mixing: MixParams,
    near: NearSummary | None = None,
    done: Mapping[str, StepFacts] | None = None,
) -> Card:
    """Build the card. `fetched` has the number of rows by source, `quarantined` each step's quarantined rows, in the order of the steps; `splits` the rows.

    `done` says what else the steps did.
    """
    labelled = task.kind == "classification"
    facts = tuple(split_summary(name, rows, labelled) for name, rows in splits.items())
    card = Card(
        task=task.name,
        kind=task.kind,
        version=version,
        steps=steps_done(sum(fetched.values()), len(rejected), quarantined, done or {}),
        sources=sources_of(fetched, splits),
        splits=facts,
        quarantine=(
            *rejected_reasons(rejected),
            *(part for step, rows in quarantined.items() for part in reasons_of(step, rows)),
        ),
        training_mix=training_mix(splits["train"], quarantined, mixing),
        warnings=(),
        near=near,
    )
    return replace(card, warnings=tuple(warnings_of(card.steps, card.splits, card.labels)))

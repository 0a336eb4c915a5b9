"""What the reader of a card should know first."""

from __future__ import annotations

from collections.abc import Sequence

from perpetune.curation.card.split_summary import SplitSummary
from perpetune.curation.card.steps import Step
from perpetune.curation.text import shortened


def warnings_of(steps: Sequence[Step], splits: Sequence[SplitSummary], labels: Sequence[str]) -> list[str]:
    """`labels` are all labels, most frequent first."""
    by_name = {split.name: split for split in splits}
    train = by_name["train"]
    warnings = []
    unselected = sum(step.quarantined for step in steps if step.name == "select")  # by select.budget, on purpose
    first, last = steps[0].rows, steps[-1].kept + unselected
    if last < 0.8 * first:
        warnings.append(f"{first - last:,} of {first:,} rows are in no split; see the quarantine below.")
    untrained = [label for label in labels if label not in train.labels]
    if untrained:
        warnings.append(
            f"Labels in a holdout but not in the training split: {_listed(untrained)}. The model cannot know them."
        )
    held_out = by_name["frozen"].labels | by_name["recent"].labels
    unevaluated = [label for label in train.labels if label not in held_out]
    if unevaluated:
        warnings.append(
            f"Labels in the training split but in no holdout: {_listed(unevaluated)}. They are not evaluated."
        )
    if train.labels and max(train.labels.values()) > 10 * min(train.labels.values()):
        warnings.append("The most frequent label has more than ten times the training rows of the rarest.")
    if 0 < by_name["frozen"].rows < 100:
        warnings.append(
            f"The frozen holdout is small ({by_name['frozen'].rows}): small differences between models cannot be detected."
        )
    if not by_name["validation"].rows:
        warnings.append("The validation split is empty, so training cannot choose the best checkpoint.")
    return warnings


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(shortened(label, 40) for label in labels[:5])
    return shown if len(labels) <= 5 else f"{shown} and {len(labels) - 5} more"

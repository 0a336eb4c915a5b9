"""What each rule is worth: how much it covers, how often it stands alone, and how right it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpetune.rules.votes import ABSTAINED, Votes
from perpetune.statistics.estimate import Estimate, wilson

CONFIDENCE = 0.95


@dataclass(frozen=True)
class RuleSummary:
    """Ratios of all rows: voted on, voted on by another rule too, voted on otherwise by another rule.

    `estimated` is the accuracy that the combination finds without gold; `accuracy` is that on gold rows that the rule
    votes on, None if there are none.
    """

    name: str
    coverage: float
    overlap: float
    conflict: float
    estimated: float | None
    accuracy: Estimate | None


def summaries(votes: Votes, estimated: Sequence[float], gold: Votes, right: Sequence[str]) -> list[RuleSummary]:
    """A summary of each rule; `right` are the labels of the rows of `gold`."""
    cast = votes.of != ABSTAINED
    overlap = cast & (cast.sum(axis=1, keepdims=True) > 1)
    conflict = cast & _contradicted(votes.of)
    return [
        RuleSummary(
            name,
            float(cast[:, rule].mean()),
            float(overlap[:, rule].mean()),
            float(conflict[:, rule].mean()),
            float(estimated[rule]) if cast[:, rule].any() else None,
            accuracy_of([gold.named(row).get(name) for row in range(len(right))], right),
        )
        for rule, name in enumerate(votes.rules)
    ]


def _contradicted(votes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether another rule votes for another label, for each vote (rows, rules)."""
    highest = np.where(votes == ABSTAINED, -1, votes).max(axis=1, initial=-1)
    lowest = np.where(votes == ABSTAINED, np.iinfo(np.int64).max, votes).min(axis=1, initial=np.iinfo(np.int64).max)
    return np.broadcast_to(((highest != lowest) & (highest >= 0))[:, None], votes.shape)


def accuracy_of(labels: Sequence[str | None], right: Sequence[str]) -> Estimate | None:
    """The accuracy on gold rows, without those that have no label; None if none has one."""
    hits = [label == truth for label, truth in zip(labels, right, strict=True) if label is not None]
    return wilson(sum(hits), len(hits), CONFIDENCE) if hits else None

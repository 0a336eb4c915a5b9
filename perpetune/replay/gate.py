"""The promotion gate of a replay: the same rule, from marks on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

from perpetune.evaluation.paired import compare
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion import PairedEvidence, PromotionEvidence, should_promote
from perpetune.policy.verdict import Interval, Verdict
from perpetune.replay.school import Marked

Marks = Sequence[Marked]


def judge(
    champion: tuple[Marks, Marks], challenger: tuple[Marks, Marks], rules: PromoteParams, params: EvaluateParams
) -> Verdict:
    """The verdict on a challenger from both models' marks on the (frozen, recent) holdout; recent may be empty."""
    frozen, recent = (
        _paired(before, after, params) if after else None for before, after in zip(champion, challenger, strict=True)
    )
    assert frozen is not None
    return should_promote(PromotionEvidence(frozen, recent, "champion"), rules)


def _paired(champion: Marks, challenger: Marks, params: EvaluateParams) -> PairedEvidence:
    found = compare(
        [marked.score for marked in champion],
        [marked.score for marked in challenger],
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
    interval = Interval(found.low, found.high, params.confidence)
    return PairedEvidence(found.difference, interval, found.p_value, found.n)

"""The promotion gate of a replay: the same rule, from marks on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion import PromotionEvidence, should_promote
from perpetune.policy.verdict import Verdict
from perpetune.replay.models.model_cache import ScoredAnswer

Marks = Sequence[ScoredAnswer]


def judge(
    champion: tuple[Marks, Marks],
    challenger: tuple[Marks, Marks],
    rules: PromoteParams,
    params: EvaluateParams,
    ratios: Mapping[str, float],
) -> Verdict:
    """The verdict on a challenger from both models' marks on the (frozen, recent) holdout; recent may be empty.

    `ratios` of the labels that come join each.
    """
    frozen, recent = (
        paired_evidence(Slice(_scores(before), _scores(after)), params, rules) if after else None
        for before, after in zip(champion, challenger, strict=True)
    )
    assert frozen is not None
    return should_promote(PromotionEvidence(frozen, recent, "champion", label_ratios=ratios), rules)


def _scores(marks: Marks) -> tuple[float, ...]:
    return tuple(scored.score for scored in marks)

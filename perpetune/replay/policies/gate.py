"""The promotion gate of a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion import PromotionEvidence, should_promote
from perpetune.policy.verdict import Verdict
from perpetune.replay.models.model_cache import ScoredAnswer

Scored = Sequence[ScoredAnswer]


def promotion_verdict(
    champion: tuple[Scored, Scored],
    challenger: tuple[Scored, Scored],
    rules: PromoteParams,
    params: EvaluateParams,
    ratios: Mapping[str, float],
) -> Verdict:
    """The verdict on a challenger from both models' scored answers on the (frozen, recent) holdouts; recent may be empty.

    `ratios` of new labels join each holdout.
    """
    frozen, recent = (
        paired_evidence(Slice(_scores(before), _scores(after)), params, rules) if after else None
        for before, after in zip(champion, challenger, strict=True)
    )
    assert frozen is not None
    return should_promote(PromotionEvidence(frozen, recent, "champion", label_ratios=ratios), rules)


def _scores(scored_answers: Scored) -> tuple[float, ...]:
    return tuple(scored.score for scored in scored_answers)

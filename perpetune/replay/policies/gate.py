"""The promotion gate of a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.loop.assess.anchor import best_of
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion.evidence import Anchor, HoldoutUse, PromotionEvidence
from perpetune.policy.promotion.gate import should_promote
from perpetune.policy.verdict import Verdict
from perpetune.replay.models.model_cache import ScoredAnswer

Scored = Sequence[ScoredAnswer]


@dataclass(frozen=True)
class GateContext:
    """What the gate knows beside the answers of champion and challenger.

    `ratios` of new labels join each holdout; `uses`: how often its rows decided before. `anchors` are the frozen answers of
    the champions before this one, oldest first. `after_decay`: decay has started the refresh.
    """

    ratios: Mapping[str, float]
    uses: Mapping[str, HoldoutUse]
    anchors: Sequence[Scored]
    after_decay: bool


def promotion_verdict(
    champion: tuple[Scored, Scored],
    challenger: tuple[Scored, Scored],
    rules: PromoteParams,
    params: EvaluateParams,
    context: GateContext,
) -> Verdict:
    """The verdict on a challenger from both models' scored answers on the (frozen, recent) holdouts; recent may be empty."""
    frozen, recent = (
        paired_evidence(Slice(_scores(before), _scores(after)), params, rules) if after else None
        for before, after in zip(champion, challenger, strict=True)
    )
    assert frozen is not None
    evidence = PromotionEvidence(
        frozen,
        recent,
        "champion",
        label_ratios=context.ratios,
        uses=context.uses,
        anchor=_anchor([*context.anchors, champion[0]], challenger[0], params, rules),
        after_decay=context.after_decay,
    )
    return should_promote(evidence, rules)


def _anchor(served: Sequence[Scored], ours: Scored, params: EvaluateParams, rules: PromoteParams) -> Anchor | None:
    """The challenger against the best that ever served; None if that is the champion, which is the last one."""
    known = {
        str(number): {scored.example.id: scored.score for scored in answers}
        for number, answers in enumerate(served, start=1)
    }
    anchor = best_of(known, params, rules)
    if anchor is None or anchor == str(len(served)):
        return None
    theirs = _scores(served[int(anchor) - 1])
    return Anchor(anchor, paired_evidence(Slice(theirs, _scores(ours)), params, rules))


def _scores(scored_answers: Scored) -> tuple[float, ...]:
    return tuple(scored.score for scored in scored_answers)

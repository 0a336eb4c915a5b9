"""What the scores of two systems on the same rows say, as the promotion gate weighs it."""

from __future__ import annotations

from perpetune.evaluation.paired import Paired, compare
from perpetune.evaluation.slices import Slice
from perpetune.evaluation.worse import worse_by_more_than
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion import PairedEvidence
from perpetune.policy.verdict import Interval


def paired_evidence(scores: Slice, params: EvaluateParams, rules: PromoteParams) -> PairedEvidence:
    """What the scores of the same rows say of the subject against the other."""
    paired = compare(
        scores.theirs,
        scores.ours,
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
    return as_evidence(paired, scores, params, rules)


def as_evidence(paired: Paired, scores: Slice, params: EvaluateParams, rules: PromoteParams) -> PairedEvidence:
    """The same where the two were compared before."""
    return PairedEvidence(
        difference=paired.difference,
        interval=Interval(paired.low, paired.high, params.confidence),
        p_value=paired.p_value,
        rows=paired.n,
        discordance=paired.discordance,
        p_worse=worse_by_more_than(rules.slice_margin, scores.theirs, scores.ours),
    )

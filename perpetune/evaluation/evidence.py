"""Evidence for the promotion gate from the scores of two systems on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from perpetune.evaluation.slices import Slice
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion.evidence import PairedEvidence, Recall
from perpetune.policy.verdict import Interval
from perpetune.statistics.balanced_accuracy import balanced_mean, compare_balanced
from perpetune.statistics.distributions import beta_quantile
from perpetune.statistics.non_inferiority import inferiority_p_value
from perpetune.statistics.paired import BETTING, PairedComparison, compare


def paired_evidence(scores: Slice, params: EvaluateParams, rules: PromoteParams) -> PairedEvidence:
    """The paired comparison of the subject (`ours`) with the other system (`theirs`)."""
    paired = compare(
        scores.theirs,
        scores.ours,
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
        groups=scores.groups or None,
        weights=scores.weights or None,
    )
    return _evidence(paired, scores, params, rules)


def balanced_evidence(
    labels: Sequence[str], scores: Slice, params: EvaluateParams, rules: PromoteParams
) -> PairedEvidence:
    """The same with equal weight for every label; `labels` are the rows' expected labels."""
    paired = compare_balanced(
        labels,
        scores.theirs,
        scores.ours,
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
    return replace(_evidence(paired, scores, params, rules), other=balanced_mean(labels, scores.theirs))


def recalls(by_label: Mapping[str, Slice], alpha: float, *, serves: bool) -> dict[str, Recall]:
    """The recall of each label; with `serves`, also that of the other system, which serves.

    The intervals are Clopper and Pearson's (1934), exact at any size, with Bonferroni correction: if all labels meet
    their minimum recall, one is reported below it with a probability of at most `alpha`.
    """
    level = 1 - 2 * alpha / max(1, len(by_label))
    return {
        label: _recall(scores.ours, sum(scores.theirs) / len(scores.theirs) if serves else None, level)
        for label, scores in by_label.items()
    }


def _recall(ours: Sequence[float], serving: float | None, level: float) -> Recall:
    rows, found = len(ours), round(sum(ours))
    tail = (1 - level) / 2
    low = beta_quantile(tail, found, rows - found + 1) if found else 0.0
    high = beta_quantile(1 - tail, found + 1, rows - found) if found < rows else 1.0
    return Recall(found / rows, Interval(low, high, level), rows, serving)


def _evidence(paired: PairedComparison, scores: Slice, params: EvaluateParams, rules: PromoteParams) -> PairedEvidence:
    return PairedEvidence(
        difference=paired.difference,
        interval=Interval(paired.low, paired.high, params.confidence),
        p_value=paired.p_value,
        rows=paired.n,
        discordance=paired.discordance,
        p_worse=inferiority_p_value(
            rules.slice_margin, scores.theirs, scores.ours, scores.groups or None, scores.weights or None
        ),
        other=sum(scores.theirs) / len(scores.theirs),
        effective=None if paired.effective is None else round(paired.effective),
        by_betting=paired.method == BETTING,
    )

"""What the scores of two systems on the same rows say, as the promotion gate weighs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.stats import beta

from perpetune.evaluation.slices import Slice
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion import PairedEvidence, Recall
from perpetune.policy.verdict import Interval
from perpetune.statistics.balanced_accuracy import compare_balanced
from perpetune.statistics.non_inferiority import inferiority_p_value
from perpetune.statistics.paired import PairedComparison, compare


def paired_evidence(scores: Slice, params: EvaluateParams, rules: PromoteParams) -> PairedEvidence:
    """What the scores of the same rows say of the subject against the other."""
    paired = compare(
        scores.theirs,
        scores.ours,
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
    return _evidence(paired, scores, params, rules)


def balanced_evidence(
    labels: Sequence[str], scores: Slice, params: EvaluateParams, rules: PromoteParams
) -> PairedEvidence:
    """The same, each label counting alike. `labels` are those that were wanted of the rows."""
    paired = compare_balanced(
        labels,
        scores.theirs,
        scores.ours,
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
    return _evidence(paired, scores, params, rules)


def recalls(by_label: Mapping[str, Slice], alpha: float, *, serves: bool) -> dict[str, Recall]:
    """How many of each label's rows are found, beside what serves, if the other one of a slice does.

    The intervals are Clopper and Pearson's (1934), exact at any size, and hold together for all labels (Bonferroni):
    a floor that is met by all of them is called missed with a chance of at most `alpha`.
    """
    level = 1 - 2 * alpha / max(1, len(by_label))
    return {
        label: _recall(scores.ours, sum(scores.theirs) / len(scores.theirs) if serves else None, level)
        for label, scores in by_label.items()
    }


def _recall(ours: Sequence[float], serving: float | None, level: float) -> Recall:
    rows, found = len(ours), round(sum(ours))
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, found, rows - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, rows - found)) if found < rows else 1.0
    return Recall(found / rows, Interval(low, high, level), rows, serving)


def _evidence(paired: PairedComparison, scores: Slice, params: EvaluateParams, rules: PromoteParams) -> PairedEvidence:
    return PairedEvidence(
        difference=paired.difference,
        interval=Interval(paired.low, paired.high, params.confidence),
        p_value=paired.p_value,
        rows=paired.n,
        discordance=paired.discordance,
        p_worse=inferiority_p_value(rules.slice_margin, scores.theirs, scores.ours),
    )

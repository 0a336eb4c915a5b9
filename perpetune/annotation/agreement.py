"""How far annotators agree beyond chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from perpetune.annotation.decide import newest
from perpetune.annotation.records import Annotation


@dataclass(frozen=True)
class PairAgreement:
    """Cohen's kappa of two annotators over the `rows` that both labelled; None if both always said one thing."""

    one: str
    other: str
    rows: int
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha over the rows with two labels or more, and each pair of annotators."""

    rows: int
    alpha: float | None
    pairs: tuple[PairAgreement, ...]


def agreement(annotations: Sequence[Annotation]) -> Agreement:
    """The agreement of all annotators; of one person's labels for a row the newest counts."""
    by_row: dict[str, dict[str, str]] = defaultdict(dict)
    for each in newest(annotations):
        by_row[each.subject.key][each.annotator] = each.label
    several = [labels for labels in by_row.values() if len(labels) > 1]
    people = sorted({name for labels in several for name in labels})
    pairs = [found for one, other in combinations(people, 2) if (found := _pair(one, other, several))]
    return Agreement(len(several), krippendorff_alpha([list(labels.values()) for labels in several]), tuple(pairs))


def _pair(one: str, other: str, rows: Sequence[Mapping[str, str]]) -> PairAgreement | None:
    both = [(labels[one], labels[other]) for labels in rows if one in labels and other in labels]
    return PairAgreement(one, other, len(both), cohen_kappa(both)) if both else None


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two annotators (Educational and Psychological Measurement 20 (1960) 37).

    None without pairs, or if chance alone gives full agreement.
    """
    n = len(pairs)
    ones, others = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    expected = sum(count * others[label] for label, count in ones.items()) / n**2 if n else 1.0
    if expected == 1:
        return None
    return (sum(one == other for one, other in pairs) / n - expected) / (1 - expected)


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha for nominal labels and any number of annotators, with labels missing.

    From the coincidence matrix of "Computing Krippendorff's Alpha-Reliability" (Krippendorff 2011). `units` are the labels
    of each row; those with fewer than two count nothing. None if no two labels differ, or there is nothing to compare.
    """
    coincidences: defaultdict[tuple[str, str], float] = defaultdict(float)
    for labels in units:
        if len(labels) > 1:
            for one, first in enumerate(labels):
                for other, second in enumerate(labels):
                    if one != other:
                        coincidences[first, second] += 1 / (len(labels) - 1)
    totals: defaultdict[str, float] = defaultdict(float)
    for (label, _), count in coincidences.items():
        totals[label] += count
    n = sum(totals.values())
    expected = sum(totals[one] * totals[other] for one in totals for other in totals if one != other)
    if not expected:
        return None
    observed = sum(count for (one, other), count in coincidences.items() if one != other)
    return 1 - (n - 1) * observed / expected

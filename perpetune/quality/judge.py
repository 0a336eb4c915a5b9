"""Which labels are probably wrong: confident learning, and near duplicates that contradict each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.suspects import BY_MODEL, BY_NEIGHBOUR, Suspect
from perpetune.curation.text import fingerprint, shortened
from perpetune.quality.embedding_cache import Vectors
from perpetune.quality.out_of_fold import out_of_fold
from perpetune.records import Example

FEW_ROWS = "label with too few rows to judge"
BEYOND = "beyond label_errors.max_rows"


@dataclass(frozen=True)
class Opinions:
    """Out-of-fold probabilities, (rows, labels), of rows whose labels could be judged."""

    rows: tuple[Example, ...]
    labels: tuple[str, ...]
    given: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def margins(self) -> NDArray[np.float64]:
        """The probability of the given label less that of the most likely other one, from -1 to 1, (rows,)."""
        rows = np.arange(len(self.given))
        others = self.probabilities.copy()
        others[rows, self.given] = -1.0
        return np.asarray(self.probabilities[rows, self.given] - others.max(axis=1))


def judgeable(
    rows: Sequence[Example], groups: Sequence[str], folds: int, max_rows: int | None
) -> tuple[list[int], dict[str, int]]:
    """The positions of rows whose labels can be judged, and how many cannot, by reason.

    A label needs as many groups as there are folds, so that each model has seen it, and two labels are needed. Beyond
    `max_rows` the rows are a sample by hash.
    """
    positions = sorted(range(len(rows)), key=lambda place: fingerprint("judged", rows[place].source, rows[place].id))
    sample = sorted(positions[:max_rows])
    groups_of: dict[str, set[str]] = defaultdict(set)
    for place in sample:
        groups_of[rows[place].output].add(groups[place])
    known = {label for label, members in groups_of.items() if len(members) >= folds}
    judged = [place for place in sample if rows[place].output in known] if len(known) > 1 else []
    unjudged = {BEYOND: len(rows) - len(sample), FEW_ROWS: len(sample) - len(judged)}
    return judged, {reason: count for reason, count in unjudged.items() if count}


def opinions_of(rows: Sequence[Example], vectors: Vectors, groups: Sequence[str], folds: int) -> Opinions:
    """Train on all folds but one, and ask about the rows of that one; `rows` are those that can be judged."""
    labels = sorted({row.output for row in rows})
    numbers = {label: number for number, label in enumerate(labels)}
    given = np.array([numbers[row.output] for row in rows], dtype=np.int64)
    return Opinions(tuple(rows), tuple(labels), given, out_of_fold(vectors, given, groups, folds))


def suspects_of(opinions: Opinions, contradictions: Mapping[int, Sequence[int]]) -> list[Suspect]:
    """Rows whose label is probably wrong, the most certain first.

    By the model: confident learning (Northcutt, Jiang and Chuang 2021, Journal of Artificial Intelligence Research
    70:1373) by cleanlab. By a near duplicate: `contradictions` has, by position, the positions of near duplicates with
    another label; the row of the two whose label the model finds less likely than the other one is suspected.
    """
    if not opinions.rows:
        return []
    from cleanlab.filter import find_label_issues  # late: a second

    margins = opinions.margins
    issues = find_label_issues(opinions.given, opinions.probabilities, filter_by="low_normalized_margin", n_jobs=1)
    found = dict.fromkeys(np.flatnonzero(issues & (margins < 0)).tolist(), BY_MODEL)
    against: dict[int, int] = {}
    for place, others in contradictions.items():
        likelier = [other for other in others if _prefers(opinions, place, other)]
        if likelier:
            against[place] = max(likelier, key=lambda other: opinions.probabilities[place, opinions.given[other]])
            found[place] = BY_NEIGHBOUR
    suspects = [_suspect(opinions, place, margins[place], why, against.get(place)) for place, why in found.items()]
    return sorted((each for each in suspects if each), key=lambda each: (each.margin, each.source, each.id))


def _prefers(opinions: Opinions, place: int, other: int) -> bool:
    own, theirs = opinions.given[place], opinions.given[other]
    return bool(opinions.probabilities[place, theirs] > opinions.probabilities[place, own])


def _suspect(opinions: Opinions, place: int, margin: float, why: str, against: int | None) -> Suspect | None:
    """None if what the model suggests is another right output of the row."""
    row, chances = opinions.rows[place], opinions.probabilities[place]
    best = int(chances.argmax())
    if opinions.labels[best] in row.right_outputs:
        return None
    neighbour = opinions.rows[against] if against is not None else None
    return Suspect(
        source=row.source,
        id=row.id,
        input=shortened(row.input, 300),
        label=row.output,
        suggested=opinions.labels[best],
        margin=round(float(margin), 3),
        label_probability=round(float(chances[opinions.given[place]]), 3),
        suggested_probability=round(float(chances[best]), 3),
        why=why,
        like=f"{shortened(neighbour.input, 100)} → {neighbour.output}" if neighbour else None,
    )


def noise_rate(suspects: Sequence[Suspect], judged: int) -> float:
    """The estimated ratio of wrong labels."""
    return sum(each.why == BY_MODEL for each in suspects) / judged if judged else 0.0


def confusions(suspects: Sequence[Suspect]) -> list[tuple[str, str, int]]:
    """Given label, suggested label and number of suspects, most frequent first."""
    counts = Counter((each.label, each.suggested) for each in suspects)
    return [(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

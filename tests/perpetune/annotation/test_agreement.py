from __future__ import annotations

from datetime import UTC, datetime

import pytest

from perpetune.annotation.agreement import agreement, cohen_kappa, krippendorff_alpha
from perpetune.annotation.records import Annotation, Subject


def test_alpha_is_that_of_the_published_example() -> None:
    """Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units."""
    a = ["1", "2", "3", "3", "2", "1", "4", "1", "2", "*", "*", "*"]
    b = ["1", "2", "3", "3", "2", "2", "4", "1", "2", "5", "*", "3"]
    c = ["*", "3", "3", "3", "2", "3", "4", "2", "2", "5", "1", "*"]
    d = ["1", "2", "3", "3", "2", "4", "4", "1", "2", "5", "1", "*"]
    units = [[label for label in labels if label != "*"] for labels in zip(a, b, c, d, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_kappa_is_that_of_a_worked_example() -> None:
    """Fifty grants, of which two readers accept 20 and refuse 15 together, and differ on 5 and 10."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)


@pytest.mark.parametrize("units", [[], [["a"]], [["a", "a"], ["a", "a"]]])
def test_without_a_difference_agreement_cannot_be_told(units: list[list[str]]) -> None:
    assert krippendorff_alpha(units) is None


def said(row: str, annotator: str, label: str, hour: int = 1) -> Annotation:
    subject = Subject(kind="row", id=row, source="s", label="x")
    time = datetime(2026, 1, 1, hour, tzinfo=UTC)
    return Annotation(subject=subject, text=row, label=label, annotator=annotator, time=time)


def test_the_newest_label_of_a_person_counts_and_rows_of_one_person_do_not() -> None:
    found = agreement(
        [
            said("1", "ann", "a", hour=1),
            said("1", "ann", "b", hour=2),
            said("1", "ben", "b"),
            said("2", "ann", "a"),
            said("2", "ben", "a"),
            said("3", "ann", "a"),
        ]
    )
    assert found.rows == 2 and found.alpha == 1
    [pair] = found.pairs
    assert (pair.one, pair.other, pair.rows, pair.kappa) == ("ann", "ben", 2, 1)

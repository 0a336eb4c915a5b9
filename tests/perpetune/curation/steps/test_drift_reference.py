from __future__ import annotations

from collections.abc import Callable

from perpetune.curation.steps.drift_reference import reference
from perpetune.params import ReferenceParams
from perpetune.records import Example

Make = Callable[..., Example]


def to(rows: int) -> ReferenceParams:
    return ReferenceParams(rows=rows, min_recent=10)


def test_recent_rows_come_first_and_frozen_rows_fill_up(example: Make) -> None:
    recent = [example(f"new {n}") for n in range(5)]
    frozen = [example(f"old {n}") for n in range(20)]

    assert [row.input.split()[0] for row in reference(recent, frozen, to(12))] == ["new"] * 5 + ["old"] * 7
    assert len(reference(recent, frozen, to(3))) == 3
    assert len(reference([], frozen, to(100))) == 20


def test_enough_recent_rows_are_the_reference_alone(example: Make) -> None:
    recent = [example(f"new {n}") for n in range(10)]
    frozen = [example(f"old {n}") for n in range(20)]

    assert set(reference(recent, frozen, to(15))) == set(recent)
    assert len(reference(recent[:9], frozen, to(15))) == 15


def test_the_sample_is_the_same_in_any_order_and_hardly_changes(example: Make) -> None:
    frozen = [example(f"old {n}") for n in range(100)]
    sample = reference([], frozen, to(50))

    assert reference([], frozen[::-1], to(50)) == sample
    assert len(set(sample) & set(reference([], [*frozen, example("one more")], to(50)))) >= 49

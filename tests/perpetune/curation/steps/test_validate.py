from __future__ import annotations

from collections.abc import Callable

from perpetune.curation.quarantine import by_reason
from perpetune.curation.steps.validate import AMBIGUOUS, CONTRADICTED, REPEATED, validate
from perpetune.records import Example

Make = Callable[..., Example]


def test_a_repeated_row_is_dropped_and_counted(example: Make) -> None:
    outcome = validate([example("a", id="1"), example("b", id="2"), example("a", id="1")])

    assert sorted(row.input for row in outcome.kept) == ["a", "b"]
    assert by_reason(outcome.quarantined) == {REPEATED: 1}


def test_a_repeated_row_leaves_its_references(example: Make) -> None:
    rows = [example("a", id="1").model_copy(update={"references": (text,)}) for text in ("sure", "yep")]
    (kept,) = validate(rows).kept
    assert sorted(kept.references) == ["sure", "yep"]


def test_different_rows_with_one_id_are_quarantined(example: Make) -> None:
    outcome = validate([example("a", id="1"), example("b", id="1"), example("c", id="2")])

    assert [row.input for row in outcome.kept] == ["c"]
    assert by_reason(outcome.quarantined) == {AMBIGUOUS: 2}
    assert "2 different rows of file have the id 1" in outcome.quarantined[0].detail


def test_the_newest_of_different_rows_with_one_id_stays(example: Make) -> None:
    outcome = validate([example("a", "old", id="1", hour=1), example("a", "new", id="1", hour=2)])

    assert [row.output for row in outcome.kept] == ["new"]
    assert by_reason(outcome.quarantined) == {CONTRADICTED: 1}


def test_two_sources_may_use_the_same_ids(example: Make) -> None:
    outcome = validate([example("a", id="1", source="x"), example("b", id="1", source="y"), example("c", id="2")])

    assert sorted(row.id for row in outcome.kept) == ["2", "x:1", "y:1"]
    assert not outcome.quarantined

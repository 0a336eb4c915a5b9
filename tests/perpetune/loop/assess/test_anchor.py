"""Which version that served is the anchor."""

from __future__ import annotations

from pathlib import Path

from perpetune.loop.assess.anchor import best_of
from perpetune.params import load_params

PARAMS = load_params(Path(__file__).parents[4] / "params.yaml")


def right_on(count: int, rows: int = 200) -> dict[str, float]:
    return {f"row-{n}": float(n < count) for n in range(rows)}


def best(known: dict[str, dict[str, float]]) -> str | None:
    return best_of(known, PARAMS.evaluate, PARAMS.promote)


def test_only_a_version_that_is_shown_to_be_better_takes_its_place() -> None:
    assert best({}) is None
    assert best({"1": right_on(160), "2": right_on(161), "3": right_on(162)}) == "1", "a row or two show nothing"
    assert best({"1": right_on(160), "2": right_on(175), "3": right_on(174)}) == "2"


def test_losses_of_a_point_each_leave_the_anchor_where_it_is() -> None:
    assert best({str(n): right_on(170 - 2 * n) for n in range(20)}) == "0"


def test_versions_are_compared_on_the_rows_that_both_have_answered() -> None:
    grown = right_on(100, 100) | {f"new-{n}": 0.0 for n in range(100)}
    assert best({"1": right_on(80, 100), "2": grown}) == "2"

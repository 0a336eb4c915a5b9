from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from perpetune.params import Params, load_params
from perpetune.policy.promotion.holdout_size import DISCORDANCE, Holdouts, holdout_warnings
from perpetune.statistics.power import power_of, rows_needed

PARAMS = load_params(Path(__file__).parents[4] / "params.yaml")


def with_settings(**changes: Mapping[str, Any]) -> Params:
    sections = {name: getattr(PARAMS, name).model_copy(update=dict(values)) for name, values in changes.items()}
    return PARAMS.model_copy(update=sections)


def held(labels: Mapping[str, int] | None = None, *, champion: bool = False, **rows: int) -> Holdouts:
    return Holdouts(rows, labels or {}, champion)


RULES = {"min_rows": 50, "gain": 0.05, "power": 0.9, "alpha": 0.05, "slice_rows": 20}
NORMAL = with_settings(promote=RULES, split={"frozen": 0.2, "recent": 0.3})
NEEDED = rows_needed(0.05, DISCORDANCE, alpha=0.05, power=0.9)


def test_a_small_frozen_holdout_says_the_chance_the_rows_and_both_ways_there() -> None:
    (said,) = holdout_warnings(held(train=600, validation=100, frozen=100), NORMAL)
    chance = 1 - power_of(100, 0.05, DISCORDANCE, alpha=0.05)
    assert said.short == f"The frozen holdout has 100 of {NEEDED} rows needed for a gain of 5.0 points (promote.gain)."
    assert said.detail.startswith(f"Such a gain would be missed with a chance of {chance:.0%} if 10% of the rows are")
    assert f"with {NEEDED} rows the chance is 10%" in said.detail
    assert str(said) == f"{said.short} {said.detail}"
    more = (NEEDED - 100) / 0.2
    assert f"Add about {round(more / 100 + 0.5) * 100:,} examples" in said.detail
    assert f"raise split.frozen to {NEEDED / 800 + 0.005:.2f}" in said.detail


def test_fewer_rows_than_a_verdict_needs() -> None:
    (said,) = holdout_warnings(held(train=130, validation=20, frozen=30), NORMAL)
    assert said.short == "The frozen holdout has 30 of 50 rows needed for a verdict (promote.min_rows)."
    assert said.detail.startswith(f"{NEEDED} rows are needed to find a gain of 5.0 points (promote.gain). Add about")
    assert "raise split.frozen" not in said.detail, "more than half of the examples would be held out"


def test_enough_rows_say_nothing() -> None:
    assert holdout_warnings(held({"a": 500, "b": 500}, train=4000, validation=500, frozen=1000), NORMAL) == ()


def test_the_settings_of_the_gate_decide() -> None:
    rows = held({"a": 90, "b": 90}, train=600, validation=100, frozen=180)
    assert holdout_warnings(rows, NORMAL)
    assert holdout_warnings(rows, with_settings(promote=RULES | {"gain": 0.1})) == ()


def test_rare_labels_are_named_rarest_first() -> None:
    labels = {"ham": 73, "spam": 11, "newsletter": 14}
    said = holdout_warnings(held(labels, train=4000, validation=500, frozen=1000), NORMAL)[-1]
    assert said.short == (
        "2 of 3 labels have fewer than 20 rows in the holdouts (promote.slice_rows): spam (11), newsletter (14)."
    )
    assert "Add about 45 examples of the rarest" in said.detail
    many = {f"intent {number}": number for number in range(12)}
    assert "and 7 more" in holdout_warnings(held(many, train=4000, validation=500, frozen=1000), NORMAL)[-1].short


def test_against_a_champion_the_gain_is_looked_for_on_the_recent_holdout() -> None:
    rows = held(train=4000, validation=500, frozen=1000, recent=60, champion=True)
    (said,) = holdout_warnings(rows, NORMAL)
    assert said.short.startswith("The recent holdout has 60 of ")
    assert "labels to POST /v1/feedback" in said.detail
    few = held(train=400, validation=50, frozen=30, recent=60, champion=True)
    assert holdout_warnings(few, NORMAL)[1].short.startswith("The frozen holdout has 30 of 50 rows")
    assert holdout_warnings(held(train=4000, validation=500, frozen=1000, recent=60), NORMAL) == ()


@pytest.mark.parametrize("frozen", [0, 1, 5])
def test_next_to_no_rows_break_nothing(frozen: int) -> None:
    assert holdout_warnings(held(train=20, validation=2, frozen=frozen), NORMAL)
    assert holdout_warnings(held(frozen=frozen), with_settings(promote=RULES, split={"frozen": 0.0}))

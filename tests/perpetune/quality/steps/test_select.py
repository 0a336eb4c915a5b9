"""A selection has the size of the budget, balances labels, keeps rare ones, covers the inputs, and is never the first rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from perpetune.curation.readers.row import example_of
from perpetune.errors import PerpetuneError
from perpetune.params import SelectParams
from perpetune.quality.features import TFIDF, Features, tfidf_vectors
from perpetune.quality.steps.select import Selection, select
from perpetune.records import Example

Method = Literal["facility_location", "k_center", "random"]
METHODS: tuple[Method, ...] = ("facility_location", "k_center", "random")
PREFERENCES: tuple[Literal["none", "hard", "easy"], ...] = ("none", "hard", "easy")
TOPICS = ["cards", "loans", "rates", "fraud", "apps", "cash", "fees", "travel"]


def rows_of(counts: dict[str, int], seed: int = 1) -> list[Example]:
    """So many rows of each label: mostly of its first topics, a few of the later ones."""
    draw = random.Random(seed)
    rows = []
    for label, count in counts.items():
        for number in range(count):
            topic = TOPICS[min(int(draw.expovariate(0.9)), len(TOPICS) - 1)]
            text = f"{label} {topic} {topic} {draw.choice('abcdefgh')}{number}"
            rows.append(example_of({"input": text, "output": label, "id": f"{label} {number}"}, "made"))
    return rows


def embed(texts: Sequence[str]) -> Features:
    return Features(tfidf_vectors(texts), TFIDF, "this is a test")


def chosen(rows: Sequence[Example], budget: int | None, method: Method, *, labelled: bool = True) -> Selection:
    return select(rows, SelectParams(budget=budget, method=method), embed, labelled=labelled)


@pytest.mark.parametrize("method", METHODS)
def test_a_selection_is_as_large_as_its_budget_and_loses_no_row(method: Method) -> None:
    rows = rows_of({"yes": 200, "no": 90, "rare": 4})
    found = chosen(rows, 60, method)
    assert len(found.chosen) == 60
    assert sorted(row.id for row in [*found.chosen, *(left.example for left in found.left)]) == sorted(
        r.id for r in rows
    )


@pytest.mark.parametrize("method", METHODS)
def test_labels_share_the_budget_and_rare_ones_keep_all_their_rows(method: Method) -> None:
    counts = Counter(row.output for row in chosen(rows_of({"yes": 200, "no": 90, "rare": 4}), 60, method).chosen)
    assert counts == {"rare": 4, "yes": 28, "no": 28}


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_rows_does_not_matter_and_the_first_are_not_preferred(method: Method) -> None:
    rows = rows_of({"yes": 150, "no": 150})
    found = chosen(rows, 30, method)
    assert chosen(rows[::-1], 30, method).chosen == found.chosen
    numbers = [int(row.id.split()[1]) for row in found.chosen]
    assert np.mean(numbers) > 45


@pytest.mark.parametrize("method", ["facility_location", "k_center"])
def test_rare_kinds_of_inputs_are_covered_better_than_by_chance(method: Method) -> None:
    rows = rows_of({"yes": 400, "no": 400})

    def kinds(found: Selection) -> int:
        return len({(row.output, row.input.split()[1]) for row in found.chosen})

    assert kinds(chosen(rows, 24, method)) > kinds(chosen(rows, 24, "random"))


@pytest.mark.parametrize("method", METHODS)
def test_free_text_has_no_labels(method: Method) -> None:
    rows = [row.model_copy(update={"output": f"answer {row.id}"}) for row in rows_of({"yes": 100})]
    assert len(chosen(rows, 20, method, labelled=False).chosen) == 20


def test_without_a_budget_all_rows_stay() -> None:
    rows = rows_of({"yes": 20, "no": 20})
    for budget in (None, 40, 1000):
        found = chosen(rows, budget, "facility_location")
        assert len(found.chosen) == 40 and not found.left


def test_rows_whose_label_is_probably_wrong_are_chosen_last() -> None:
    rows = rows_of({"yes": 150, "no": 150})
    wrong = {row.id for row in random.Random(5).sample(rows, 30)}
    other = {"yes": "no", "no": "yes"}
    spoiled = [row.model_copy(update={"output": other[row.output]}) if row.id in wrong else row for row in rows]
    kept = [row.id for row in chosen(spoiled, 60, "facility_location").chosen]
    assert len(wrong & set(kept)) <= 1


@pytest.mark.parametrize("labelled", [True, False])
def test_hard_rows_are_preferred_if_that_is_asked_for_and_the_budget_is_the_same(labelled: bool) -> None:
    rows = rows_of({"yes": 150, "no": 150})
    found = {
        prefer: [
            row.id for row in select(rows, SelectParams(budget=60, prefer=prefer), embed, labelled=labelled).chosen
        ]
        for prefer in PREFERENCES
    }
    assert all(len(ids) == 60 for ids in found.values())
    assert len({tuple(ids) for ids in found.values()}) == 3


def test_preferring_hard_rows_does_not_prefer_wrong_labels() -> None:
    rows = rows_of({"yes": 150, "no": 150})
    wrong = {row.id for row in random.Random(5).sample(rows, 30)}
    other = {"yes": "no", "no": "yes"}
    spoiled = [row.model_copy(update={"output": other[row.output]}) if row.id in wrong else row for row in rows]
    kept = select(spoiled, SelectParams(budget=60, prefer="hard"), embed, labelled=True).chosen
    assert len(wrong & {row.id for row in kept}) <= 1


def test_poor_texts_are_chosen_last() -> None:
    rows = rows_of({"yes": 60, "no": 60})
    poor = [
        example_of({"input": "yes cards " + "again and again " * 200, "output": "yes", "id": f"poor {number}"}, "made")
        for number in range(5)
    ]
    assert sum(row.id.startswith("poor") for row in chosen([*rows, *poor], 30, "facility_location").chosen) <= 1


def test_a_budget_below_the_number_of_labels_is_refused() -> None:
    with pytest.raises(PerpetuneError, match=r"select\.budget 2 is less than one row for each of 3 labels"):
        chosen(rows_of({"a": 5, "b": 5, "c": 5}), 2, "facility_location")

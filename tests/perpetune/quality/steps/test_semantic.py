"""Inputs that mean the same are found, and then split together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perpetune.curation.duplicates.by_meaning import with_pairs
from perpetune.curation.duplicates.near import near_duplicates
from perpetune.curation.quarantine import in_order
from perpetune.curation.readers.row import example_of
from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.steps.split import split
from perpetune.params import SemanticParams, SplitParams
from perpetune.quality.features import TFIDF, Features
from perpetune.quality.neighbours import MOST, alike
from perpetune.quality.steps.semantic import semantic
from perpetune.records import Example

ON = SemanticParams(threshold=0.9)
WORDS = [
    "amber",
    "birch",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "grove",
    "heath",
    "islet",
    "jetty",
    "knoll",
    "larch",
    "moor",
    "notch",
    "oasis",
    "pond",
    "quay",
    "ridge",
]


def pairs_of_rows(count: int) -> list[Example]:
    """Row n and row n + count mean the same, and share no words."""
    first = [f"{WORDS[n % 18]} is lost near {WORDS[n // 18]}" for n in range(count)]
    second = [f"somebody misplaced {WORDS[n % 18]} around {WORDS[n // 18]} today" for n in range(count)]
    return [
        example_of({"input": text, "output": "x", "id": f"row {n}"}, "made") for n, text in enumerate(first + second)
    ]


def embed(texts: Sequence[str]) -> Features:
    """An encoder that knows the two forms: one direction for each meaning."""
    meanings = [[word for word in text.split() if word in WORDS] for text in texts]
    places = [18 * WORDS.index(where) + WORDS.index(what) for what, where in meanings]
    return Features(np.eye(18 * 18, dtype=np.float32)[places], "two-forms")


def straddling(rows: Sequence[Example], threshold: float | None) -> int:
    near = near_duplicates(in_order(rows))
    found = with_pairs(near, rows, semantic(rows, SemanticParams(threshold=threshold), embed))
    splits = split(rows, SplitParams(), AssignmentRecord(7), near=found)
    split_of = {row.id: name for name, part in splits.parts().items() for row in part}
    half = len(rows) // 2
    both = [(split_of.get(f"row {n}"), split_of.get(f"row {n + half}")) for n in range(half)]
    return sum(one is not None and other is not None and one != other for one, other in both)


def test_what_means_the_same_straddles_no_splits() -> None:
    rows = pairs_of_rows(100)
    assert straddling(rows, None) > 20
    assert straddling(rows, 0.9) == 0


def test_pairs_do_not_depend_on_the_order_of_rows() -> None:
    rows = pairs_of_rows(40)
    assert len(semantic(rows, ON, embed)) == 40
    assert semantic(rows, ON, embed) == semantic(rows[::-1], ON, embed)


def test_forms_filled_in_with_other_numbers_are_no_pairs() -> None:
    rows = [
        example_of({"input": f"amber is lost near birch, ticket {n}", "output": "x", "id": f"row {n}"}, "made")
        for n in range(5)
    ]
    assert not semantic(rows, ON, lambda texts: Features(np.ones((len(texts), 1), np.float32), "same"))


def test_tfidf_sees_no_meaning() -> None:
    rows = pairs_of_rows(10)
    assert not semantic(rows, ON, lambda texts: Features(np.ones((len(texts), 1), np.float32), TFIDF, "why"))


def test_of_thousands_that_are_alike_each_has_its_nearest() -> None:
    found = alike(np.ones((2_500, 1), np.float32), 0.9)
    assert len(found) <= 2_500 * MOST
    assert {place for pair in found for place in pair} == set(range(2_500))

from __future__ import annotations

import pytest

from perpetune.evaluation.pooled_slices import pool_name, pools

CARDS = ["where is my card", "my card has not come"]
MONEY = ["give my money back", "refund the money please"]


def of(name: str, texts: list[str], rows: int) -> dict[str, list[str]]:
    return {name: [texts[n % len(texts)] for n in range(rows)]}


def test_small_slices_are_pooled_with_those_of_similar_inputs() -> None:
    small = (
        of("label late card", CARDS, 12)
        | of("label refund", MONEY, 11)
        | of("label lost card", CARDS[::-1], 9)
        | of("label chargeback", MONEY[::-1], 10)
    )
    assert pools(small, 20) == {
        "labels chargeback and refund": ("label chargeback", "label refund"),
        "labels late card and lost card": ("label late card", "label lost card"),
    }


def test_every_small_slice_is_in_a_pool_if_there_are_enough_rows() -> None:
    small = {f"label {n}": [f"word{n} common"] * (1 + n % 7) for n in range(60)}
    found = pools(small, 20)
    members = [name for some in found.values() for name in some]
    assert sorted(members) == sorted(small)
    assert all(sum(len(small[name]) for name in some) >= 20 for some in found.values())
    assert len(found) > 3


def test_labels_are_not_pooled_with_sources_and_too_few_rows_with_nothing() -> None:
    small = of("label late card", CARDS, 12) | of("source film", CARDS, 12)
    assert pools(small, 20) == {}


def test_the_order_of_slices_and_rows_does_not_matter() -> None:
    small = {f"label {n}": [f"word{n % 4} and word{n % 3}", f"word{n % 4}"] * (2 + n % 3) for n in range(20)}
    backwards = {name: texts[::-1] for name, texts in reversed(small.items())}
    assert pools(small, 20) == pools(backwards, 20)


def test_inputs_without_words_can_be_pooled() -> None:
    small = of("label up", ["👍"], 12) | of("label down", ["👎", ""], 12)
    assert list(pools(small, 20)) == ["labels down and up"]


@pytest.mark.parametrize(
    ("members", "name"),
    [
        (("label a",), "label a"),
        (("label a", "label b"), "labels a and b"),
        (("label a", "label b", "label c"), "labels a, b and c"),
        (("source a", "source b", "source c", "source d"), "sources a, b and 2 more"),
    ],
)
def test_a_pool_is_named_by_its_members(members: tuple[str, ...], name: str) -> None:
    assert pool_name(members) == name

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.rows.label_key import label_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Billing", " billing "),
        ("bill\u200bing", "billing"),
        ("\ufeffbilling", "billing"),
        ("bill\u00ading", "billing"),
        ("ｂｉｌｌｉｎｇ", "billing"),
        ("cafe\u0301", "café"),
        ("1.0", "1"),
        ("-3.00", "-3"),
        ('["refund","late"]', '["late", "refund"]'),
        ("[1.0, 2]", "[2, 1]"),
        ("refund, late", "late;refund"),
        ("refund|late", "late | refund"),
        ('{"a": 1, "b": ["x", "y"]}', '{"b":["y","x"],"a":1.0}'),
    ],
)
def test_variants_of_a_label_are_one(one: str, other: str) -> None:
    assert label_key(one) == label_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.10", "1.1"), ("0.5", "5"), ("a,b", "ab"), ("[1]", "1"), ("-", "+"), ("10", "1"), ("{not json", "not json")],
)
def test_other_labels_stay_apart(one: str, other: str) -> None:
    assert label_key(one) != label_key(other)


@given(st.text(min_size=1))
def test_any_text_has_a_key_that_case_and_surrounding_space_do_not_change(text: str) -> None:
    assert label_key(f"  {text}\n") == label_key(text)


@given(st.lists(st.sampled_from(["a", "b", "c", "1", "1.0"]), min_size=1))
def test_the_order_of_a_list_does_not_count(items: list[str]) -> None:
    assert label_key(", ".join(items)) == label_key(", ".join(reversed(items)))

from __future__ import annotations

from perpetune.curation.duplicates.shared_keys import Keys, are_shared, components, digest


def test_a_row_shares_either_key_with_another() -> None:
    keys = [("a", "x"), ("b", "y"), ("a", "z"), ("c", "y"), ("d", "a")]
    digests = ((digest(one), digest(other)) for one, other in keys)
    assert are_shared(digests).tolist() == [True, True, True, True, False]


def test_no_rows_share_nothing() -> None:
    assert are_shared(iter(())).tolist() == []


def test_a_text_that_is_no_unicode_has_a_digest() -> None:
    assert digest(("user", "\ud800")) != digest(("user", "\ud801"))


def test_rows_that_share_a_key_by_way_of_others_are_one_component() -> None:
    keys = Keys()
    for owner, found in enumerate([[7], [1, 2], [3], [2, 3]]):
        keys.add(found, owner)
    assert components(keys, 4).tolist() == [0, 1, 1, 1]
    assert components(Keys(), 0).tolist() == []


def test_keys_are_found_among_others() -> None:
    one, other = Keys(), Keys()
    one.add([5, 2**64 - 1], 0)
    one.add([6], 1)
    assert list(one.found_among(other)) == []
    other.add([2**64 - 1], 4)
    other.add([7], 5)
    assert list(one.found_among(other)) == [(0, 4)]

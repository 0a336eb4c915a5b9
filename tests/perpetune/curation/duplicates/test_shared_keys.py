from __future__ import annotations

from perpetune.curation.duplicates.shared_keys import are_shared, digest


def test_a_row_shares_either_key_with_another() -> None:
    keys = [("a", "x"), ("b", "y"), ("a", "z"), ("c", "y"), ("d", "a")]
    digests = ((digest(one), digest(other)) for one, other in keys)
    assert are_shared(digests).tolist() == [True, True, True, True, False]


def test_no_rows_share_nothing() -> None:
    assert are_shared(iter(())).tolist() == []


def test_a_text_that_is_no_unicode_has_a_digest() -> None:
    assert digest(("user", "\ud800")) != digest(("user", "\ud801"))

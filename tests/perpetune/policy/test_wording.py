from __future__ import annotations

import pytest

from perpetune.policy.wording import significant


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 3, "0"),
        (0.05, 3, "0.05"),
        (0.000012345, 3, "0.0000123"),
        (2.345, 2, "2.3"),
        (9.96, 2, "10"),
        (50.0, 3, "50"),
        (99.95, 3, "100"),
        (104.3, 2, "100"),
        (1234.5, 3, "1,230"),
        (-1234.5, 3, "-1,230"),
        (5_000_000.0, 3, "5,000,000"),
    ],
)
def test_significant_digits_have_no_exponent(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text

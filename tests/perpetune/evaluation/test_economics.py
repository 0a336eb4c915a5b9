from __future__ import annotations

import pytest

from perpetune.answer import Answer
from perpetune.evaluation.economics import economics, times_as_much
from perpetune.evaluation.findings import dollars


def answer(seconds: float, prompt: int = 60, completion: int = 1) -> Answer:
    return Answer("x", None, None, prompt, completion, "stop", seconds)


def test_costs_by_hand() -> None:
    found = economics([answer(0.1), answer(0.2), answer(0.3, prompt=90)], dollars_per_hour=3.6)
    assert found.dollars_per_1000 == pytest.approx(0.2)  # 200 busy seconds at a tenth of a cent
    assert (found.seconds_mean, found.seconds_p50) == (pytest.approx(0.2), pytest.approx(0.2))
    assert found.seconds_p95 == pytest.approx(0.29)
    assert (found.requests, found.prompt_tokens, found.completion_tokens) == (3, 70, 1)


def test_costs_are_compared_in_multiples() -> None:
    own, other = economics([answer(0.1)], 1.0), economics([answer(0.6)], 1.0)
    assert times_as_much(other, own) == pytest.approx(6)
    assert times_as_much(other, economics([answer(0.0)], 1.0)) is None


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "$0"), (1234.5, "$1,234.50"), (0.5, "$0.500"), (0.00123456, "$0.00123")]
)
def test_dollars_read_as_people_write_them(amount: float, text: str) -> None:
    assert dollars(amount) == text

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from perpetune.generation.answer import Answer
from perpetune.loop.assess.answering import (
    FIRST_ROWS,
    FIRST_TEST,
    cached,
    predict_until_clear,
    with_progress,
    with_request_progress,
)
from perpetune.records import Example, Message, conversation


def row(number: int) -> Example:
    return Example(input=f"row {number}", output="good", id=str(number), group=str(number), source="t")


def say(one: Example) -> Answer:
    return Answer(f"answer to {one.input}", 0.5, {"good": 0.5, "bad": 0.5}, 9, 1, "stop", 0.1)


class FakeSystem:
    """A system that answers every row and records them."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    def __call__(self, rows: Sequence[Example]) -> list[Answer]:
        self.rows += [each.input for each in rows]
        return [say(each) for each in rows]


ROWS = [row(number) for number in range(200)]


def test_all_rows_are_answered_in_order_if_it_is_not_behind() -> None:
    ask = FakeSystem()
    found = predict_until_clear(ask, ROWS, lambda *_: False, 0.95, 7)
    assert found == [say(each) for each in ROWS]
    assert sorted(ask.rows) == sorted(each.input for each in ROWS)


def test_a_random_sample_is_answered_if_it_is_behind() -> None:
    checks: list[tuple[int, float]] = []

    def is_behind(positions: Sequence[int], answers: Sequence[Answer], confidence: float) -> bool:
        assert [say(ROWS[position]) for position in positions] == list(answers)
        checks.append((len(positions), confidence))
        return len(checks) == 2

    found = predict_until_clear(FakeSystem(), ROWS, is_behind, 0.95, 7)
    answered = [position for position, answer in enumerate(found) if answer is not None]
    assert len(answered) == 2 * FIRST_TEST and answered != list(range(2 * FIRST_TEST))
    assert all(found[position] == say(ROWS[position]) for position in answered)
    # Of 200 rows there are three tests before the last row: together they err with 5 %.
    assert checks == [(40, 1 - 0.05 / 3), (80, 1 - 0.05 / 3)]


def test_few_rows_are_all_answered() -> None:
    assert None not in predict_until_clear(FakeSystem(), ROWS[:FIRST_TEST], lambda *_: True, 0.95, 7)


def test_cached_answers_are_not_computed_again(tmp_path: Path) -> None:
    def messages_of(one: Example) -> tuple[Message, ...]:
        return conversation("which", one)

    first, again, other = FakeSystem(), FakeSystem(), FakeSystem()
    told = cached(tmp_path, {"labels": ["good", "bad"]}, messages_of, first)(ROWS[:3])
    assert cached(tmp_path, {"labels": ["good", "bad"]}, messages_of, again)(ROWS[:4]) == [*told, say(ROWS[3])]
    assert again.rows == ["row 3"]
    cached(tmp_path, {"labels": ["good"]}, messages_of, other)(ROWS[:3])
    assert len(other.rows) == 3, "other settings may give other answers"


def test_an_incomplete_cache_line_is_computed_again(tmp_path: Path) -> None:
    cached(tmp_path, "", lambda one: conversation("", one), FakeSystem())(ROWS[:2])
    [path] = tmp_path.iterdir()
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    ask = FakeSystem()
    for _ in range(2):
        assert cached(tmp_path, "", lambda one: conversation("", one), ask)(ROWS[:2]) == [
            say(each) for each in ROWS[:2]
        ]
    assert ask.rows == ["row 1"]


def test_it_says_how_far_it_is_and_what_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    told: list[str] = []

    def slow(rows: Sequence[Example]) -> list[Answer]:
        clock[0] += len(rows) * 0.5
        return [say(each) for each in rows]

    monkeypatch.setattr("perpetune.loop.assess.answering.time.monotonic", lambda: clock[0])
    rows = random.Random(1).sample(ROWS, 50)
    assert with_progress("base", slow, told.append)(rows) == [say(each) for each in rows]
    assert told[0] == f"base: {FIRST_ROWS} of 50 rows answered, about 21 s left"
    assert told[1] == "base: 24 of 50 rows answered, about 13 s left"


def test_timed_requests_are_told_of_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    told: list[str] = []

    def ask(position: int) -> int:
        clock[0] += 3
        return position

    monkeypatch.setattr("perpetune.loop.assess.answering.time.monotonic", lambda: clock[0])
    timed = with_request_progress(ask, "latency and cost", 30, told.append)
    assert [timed(position) for position in range(6)] == list(range(6))
    assert told == [f"latency and cost: {done} of at least 30 requests timed" for done in (3, 6)]

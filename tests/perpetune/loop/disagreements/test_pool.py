"""Which stored requests champion and challenger are compared on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from perpetune.curation.rows.dedup_key import input_key
from perpetune.loop.disagreements.pool import as_example, divided
from perpetune.records import Message, Prediction

START = datetime(2026, 11, 1, tzinfo=UTC)


def request(number: int, *, text: str | None = None, group: str | None = None, label: str | None = None) -> Prediction:
    words = text or f"request {number}"
    return Prediction(
        id=f"r{number}",
        time=START + timedelta(hours=number),
        task="desk",
        version="1",
        messages=(Message(role="user", content=words),),
        input=words,
        output="billing",
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1,
        group=group,
        label=label,
    )


def test_the_recent_holdout_says_what_is_recent() -> None:
    pool = divided([request(n) for n in range(100)], (), START + timedelta(hours=70), 1000, 1000, 7)
    assert sorted(row.id for row in pool.recent) == sorted(f"r{n}" for n in range(70, 100))
    assert len(pool.earlier) == 70
    halves = divided([request(n) for n in range(100)], (), None, 1000, 1000, 7)
    assert (len(halves.recent), len(halves.earlier)) == (50, 50)


def test_labelled_and_learned_requests_are_left_out() -> None:
    learned = {input_key(as_example(request(3, text="  REQUEST 3")))}
    stored = [request(n, label="billing" if n < 3 else None) for n in range(10)]
    pool = divided(stored, learned, START, 1000, 1000, 7)
    assert sorted(row.id for row in pool.recent) == [f"r{n}" for n in range(4, 10)]


def test_one_request_of_a_user_and_one_of_an_input_is_drawn() -> None:
    bursts = [request(n, text=f"Where is parcel {n // 5}?") for n in range(50)]
    heavy = [request(50 + n, group="heavy") for n in range(30)]
    pool = divided([*bursts, *heavy], (), START, 1000, 1000, 7)
    assert len({row.input for row in pool.recent}) == len(pool.recent) == 11
    assert sum(row.group == "heavy" for row in pool.recent) == 1


def test_the_draw_is_the_same_in_any_order_and_part_of_a_larger_one() -> None:
    stored = [request(n) for n in range(200)]
    small, large = (divided(stored, (), START, most, most, 7).recent for most in (50, 100))
    assert small == large[:50]
    assert divided(stored[::-1], (), START, 50, 50, 7).recent == small
    assert small != divided(stored, (), START, 50, 50, 8).recent

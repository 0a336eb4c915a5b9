"""Labels judge once, when those of the same group have come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from perpetune.prediction_log.labels.admission import admit, awaited, newly_admitted
from perpetune.prediction_log.labels.delays import LabelledGroup, ripe
from perpetune.prediction_log.labels.requests import Drawn, request_labels
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Feedback, Prediction

Make = Callable[..., Prediction]
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def rows(log: sqlalchemy.Engine, prediction: Make) -> list[Prediction]:
    found = [prediction(number) for number in range(8)]
    record_rows(log, found)
    return found


def label(log: sqlalchemy.Engine, row: Prediction, when: datetime, **more: object) -> None:
    add_feedback(log, Feedback.model_validate({"request_id": row.id, "time": when, "label": "good", **more}))


def admitted(log: sqlalchemy.Engine, after: int = 0) -> list[str]:
    return [row.id for row in newly_admitted(log, "reviews", "1", after)[0]]


def test_a_lot_counts_when_it_is_complete(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    now = rows[-1].time + HOUR
    request_labels(log, [Drawn(row.id, "lot", 0.5, 1.0) for row in rows[:3]], now)
    for row in rows[:2]:
        label(log, row, now + HOUR)
    assert admit(log, "reviews", "1", now + 2 * HOUR) == 0, "the third may be slow because it is right"
    label(log, rows[2], now + DAY)
    assert admit(log, "reviews", "1", now + DAY) == 3
    assert admitted(log) == [row.id for row in rows[:3]]
    assert admit(log, "reviews", "1", now + DAY) == 0, "each once"


def test_a_lot_that_nobody_completes_counts_after_a_week(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    now = rows[-1].time + HOUR
    request_labels(log, [Drawn(row.id, "doubt", 0.5, 0.4) for row in rows[:3]], now)
    label(log, rows[0], now + HOUR)
    assert admit(log, "reviews", "1", now + 6 * DAY) == 0
    assert admit(log, "reviews", "1", now + 7 * DAY) == 1
    [row], _ = newly_admitted(log, "reviews", "1", 0)
    assert (row.chosen, row.propensity, row.weight) == ("doubt", 0.5, 0.4)


def test_one_labelled_before_it_was_drawn_counts_after_all(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    """A later check takes it up, though labels that came after it were read before."""
    now = rows[-1].time + HOUR
    label(log, rows[0], now)
    request_labels(log, [Drawn(rows[1].id, "lot", 0.5, 1.0)], now)
    label(log, rows[1], now + HOUR)
    admit(log, "reviews", "1", now + HOUR)
    found, number = newly_admitted(log, "reviews", "1", 0)
    assert [row.id for row in found] == [rows[1].id], "the complaint decides nothing"
    request_labels(log, [Drawn(rows[0].id, "lot", 0.5, 1.0)], now + 2 * HOUR)
    admit(log, "reviews", "1", now + 2 * HOUR)
    assert admitted(log, number) == [rows[0].id]
    assert admitted(log, newly_admitted(log, "reviews", "1", number)[1]) == []


def test_unasked_labels_count_only_if_they_decide(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    now = rows[-1].time + 8 * DAY
    label(log, rows[0], rows[0].time)
    assert admit(log, "reviews", "1", now) == 0
    assert admit(log, "reviews", "1", rows[-1].time, unasked=True) == 0, "others of its time may come"
    assert admit(log, "reviews", "1", now, unasked=True) == 1


def test_all_labelled_count_at_once(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    for row in rows:
        label(log, row, row.time)
    assert admit(log, "reviews", "1", rows[-1].time, unasked=True) == 8


def test_a_clients_own_lot_counts_by_its_propensities(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    for row, propensity in zip(rows[:3], (0.1, 0.2, 0.4), strict=True):
        label(log, row, row.time, propensity=propensity)
    assert admit(log, "reviews", "1", rows[-1].time) == 3
    found, _ = newly_admitted(log, "reviews", "1", 0)
    assert [(row.chosen, row.propensity) for row in found] == [("lot", 0.1), ("lot", 0.2), ("lot", 0.4)]
    assert [row.weight for row in found] == pytest.approx([1.0, 0.5, 0.25])


def test_disagreements_judge_no_champion(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    now = rows[-1].time
    request_labels(log, [Drawn(rows[0].id, "disagreement", 0.5)], now)
    label(log, rows[0], now)
    assert admit(log, "reviews", "1", now + 30 * DAY, unasked=True) == 0


def test_quick_complaints_do_not_come_first(prediction: Make) -> None:
    """Wrong answers are labelled after an hour and right ones after three days, in 30 days of 10 requests."""
    start = prediction(0).time
    delays = [HOUR if number % 5 == 0 else 3 * DAY for number in range(300)]
    asked = [start + number * DAY / 10 for number in range(300)]
    for days in (0.5, 2, 5, 9, 20, 29):
        now = start + days * DAY
        known = [
            (when, when + delay if when + delay <= now else None)
            for when, delay in zip(asked, delays, strict=True)
            if when <= now
        ]
        group = LabelledGroup(known)
        taken = [
            delay
            for (when, labelled), delay in zip(known, delays, strict=False)
            if labelled is not None and when <= ripe(group, [group], now)
        ]
        wrong = sum(delay == HOUR for delay in taken)
        assert abs(wrong - len(taken) / 5) <= 1, f"after {days} days {wrong} of {len(taken)}"
        assert days < 10 or len(taken) >= 0.6 * len(known)


def test_all_labels_up_to_a_time_count_though_newer_requests_have_none() -> None:
    """Whoever labels everything a day later; but not whoever labels the wrong answers only."""
    now = datetime(2026, 5, 2, tzinfo=UTC)
    asked = [now - timedelta(minutes=200 - number) for number in range(200)]
    everything = [(when, now if number < 120 else None) for number, when in enumerate(asked)]
    assert ripe(LabelledGroup(everything), [], now, by_lot=False) == asked[119]
    some = [(when, now if number % 5 == 0 else None) for number, when in enumerate(asked)]
    assert ripe(LabelledGroup(some), [], now, by_lot=False) < asked[0]
    few = [(when, now if number < 20 else None) for number, when in enumerate(asked)]
    assert ripe(LabelledGroup(few), [], now, by_lot=False) < asked[0], "of a few all may be labelled by chance"


def test_labels_of_a_lot_are_awaited_until_nearly_all_have_come(log: sqlalchemy.Engine, rows: list[Prediction]) -> None:
    """A refresh in between would have the complaints in its holdout, and not the praise."""
    now = rows[-1].time + HOUR
    request_labels(log, [Drawn(row.id, "lot", 0.5, 1.0) for row in rows[:3]], now)
    for row in (rows[0], rows[5]):
        label(log, row, now + HOUR)
    assert awaited(log, "reviews", now + 2 * HOUR) == {rows[0].id}, "that of the fifth came unasked"
    assert awaited(log, "reviews", now + 8 * DAY) == set(), "the others will not come"
    for row in rows[1:3]:
        label(log, row, now + DAY)
    assert awaited(log, "reviews", now + DAY) == set()

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.monitoring.detector_state import (
    EARLY,
    counting,
    from_text,
    new_state,
    position_after,
    reset_detector,
    to_text,
    update_state,
    with_reference,
)
from perpetune.params import load_params
from perpetune.statistics.sequential.change_point import (
    WeightedScore,
    most_likely_change,
    new_detector,
    update_detector,
)

RULES = load_params(Path("params.yaml")).watch.model_copy(update={"window": 100, "run_length": 10_000})
REFERENCE = [WeightedScore(1.0)] * 90 + [WeightedScore(0.0)] * 10
NEW = new_state(REFERENCE)
SCORES = st.lists(st.builds(WeightedScore, st.floats(0, 1), st.floats(0.01, 1)), max_size=30)


def wrong(times: int) -> list[WeightedScore]:
    return [WeightedScore(0.0)] * times


def right(times: int) -> list[WeightedScore]:
    return [WeightedScore(1.0)] * times


@settings(deadline=None)
@given(st.lists(SCORES, max_size=5))
def test_verdicts_do_not_depend_on_the_division_into_checks(checks: list[list[WeightedScore]]) -> None:
    divided, number = NEW, 0
    for scores in checks:
        number += len(scores)
        divided = update_state(divided, scores, number, RULES)
    flat = [score for scores in checks for score in scores]
    at_once = update_state(NEW, flat, number, RULES)
    assert (divided.detector, divided.until, divided.labels, divided.alarmed_by, divided.asked) == (
        at_once.detector,
        at_once.until,
        at_once.labels,
        at_once.alarmed_by,
        at_once.asked,
    )
    assert divided.total == pytest.approx(sum(each.weight * each.score for each in flat))
    assert divided.weight == pytest.approx(sum(each.weight for each in flat))
    assert divided.detector == update_detector(new_detector(REFERENCE), flat)


@settings(deadline=None)
@given(SCORES, st.integers(0, 10**9))
def test_it_comes_back_from_its_text_to_the_bit(scores: list[WeightedScore], number: int) -> None:
    detector_state = update_state(NEW, [*wrong(60), *scores], number, RULES)
    assert from_text(to_text(detector_state)) == detector_state


def test_a_tag_of_mlflow_holds_a_state_of_many_labels() -> None:
    detector = NEW.detector
    for _ in range(10):
        doubled = tuple(each._replace(weight=each.rows / 3, total=each.rows / 7) for each in detector.buckets)
        detector = update_detector(replace(detector, buckets=doubled), [WeightedScore(0.1, 1 / 3)] * 500)
    many = replace(detector, buckets=tuple(each for each in detector.buckets for _ in range(2)))
    assert len(many.buckets) > 4 * 15
    assert len(to_text(replace(NEW, detector=many))) < 5000


@pytest.mark.parametrize("text", [None, "", "12", '{"until": 3}'])
def test_an_unreadable_state_is_a_new_state(text: str | None) -> None:
    assert from_text(text) == new_state()


def test_a_state_of_an_earlier_release_counts_the_labels_again() -> None:
    detector = {"bound": 0.8, "held": [1.0], "most": [1.0], "since": [1], "seen": 40}
    old = {"detector": detector, "until": 44, "labels": 40, "total": 30.0, "alarms": 0, "alarmed_by": None}
    assert from_text(json.dumps(old)) == new_state()


def test_checks_without_labels_change_nothing() -> None:
    alarmed = update_state(NEW, wrong(40), 40, RULES)
    assert update_state(alarmed, [], 40, RULES) == alarmed
    assert position_after(alarmed, 47) == replace(alarmed, until=47)


def test_checks_in_a_row_are_counted_until_one_is_silent() -> None:
    first = update_state(NEW, wrong(40), 40, RULES)
    second = update_state(first, wrong(1), 41, RULES)
    silent = update_state(second, right(3000), 3041, RULES)
    assert [each.alarms for each in (NEW, first, second, silent)] == [0, 1, 2, 0]
    alarm = first.alarmed_by
    assert alarm is not None
    assert 3 < alarm < 15, "the label at which it came, not the last of the check"
    assert [each.alarmed_by for each in (NEW, second, silent)] == [None, alarm, None]


def test_another_reference_keeps_the_labels() -> None:
    alarmed = update_state(NEW, wrong(40), 40, RULES)
    other = with_reference(alarmed, [WeightedScore(0.5)] * 10)
    assert other.detector.buckets == alarmed.detector.buckets
    assert other.detector.reference.rows == 10
    assert with_reference(alarmed, REFERENCE) is alarmed


def test_a_reset_keeps_position_and_counts() -> None:
    alarmed = replace(update_state(NEW, wrong(40), 40, RULES), asked=2)
    kept = reset_detector(alarmed)
    assert (kept.until, kept.labels, kept.alarmed_by, kept.alarms, kept.asked) == (40, 40, None, 0, 0)
    assert kept.detector == NEW.detector


def test_lots_of_urgent_labels_are_counted_for_each_fall() -> None:
    early = update_state(NEW, wrong(4), 4, RULES)
    evidence = most_likely_change(early.detector, RULES.margin).evidence
    assert RULES.run_length / EARLY <= evidence < RULES.run_length
    asked = replace(early, asked=2)
    assert update_state(asked, wrong(1), 5, RULES).asked == 2
    assert update_state(asked, right(400), 404, RULES).asked == 0, "the fall has not held"


@pytest.mark.parametrize(("before", "lots"), [("true", 1), ("false", 0)])
def test_a_state_that_said_only_whether_a_lot_was_asked_for_goes_on(before: str, lots: int) -> None:
    early = update_state(NEW, wrong(4), 4, RULES)
    assert from_text(to_text(early).replace('"asked":0', f'"asked":{before}')) == replace(early, asked=lots)


def test_another_score_counts_the_labels_again() -> None:
    counted = update_state(NEW, wrong(40), 40, RULES)
    assert counting(counted, "") is counted
    by_cost = counting(counted, "costs")
    assert (by_cost.until, by_cost.labels, by_cost.scored_by) == (0, 0, "costs")
    again = update_state(by_cost, wrong(40), 40, RULES)
    assert counting(from_text(to_text(again)), "costs") == again and again.labels == 40

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.detector_state import DetectorState, from_text, to_text, update_state, with_bound
from perpetune.params import load_params
from perpetune.statistics.e_detector import new_detector, update_detector

RULES = load_params(Path("params.yaml")).watch.model_copy(update={"window": 100})
BOUND = 0.8
NEW = DetectorState(new_detector(BOUND))
SCORES = st.lists(st.floats(0, 1), max_size=30)


@given(st.lists(SCORES, max_size=5))
def test_the_evidence_does_not_depend_on_the_division_into_checks(checks: list[list[float]]) -> None:
    detector_state, number = NEW, 0
    for scores in checks:
        number += len(scores)
        detector_state = update_state(detector_state, scores, number, RULES)
    flat = [score for scores in checks for score in scores]
    at_once = update_state(NEW, flat, number, RULES)
    assert (detector_state.detector, detector_state.until, detector_state.labels) == (
        at_once.detector,
        at_once.until,
        at_once.labels,
    )
    assert detector_state.total == pytest.approx(sum(flat))
    assert detector_state.detector == update_detector(new_detector(BOUND), flat)


@given(SCORES, st.integers(0, 10**9))
def test_it_comes_back_from_its_text_to_the_bit(scores: list[float], number: int) -> None:
    detector_state = update_state(NEW, [0.0] * 60 + scores, number, RULES)
    text = to_text(detector_state)
    assert from_text(text, 0.5) == detector_state
    assert len(text) < 4000, "a tag of MLflow holds it"


@pytest.mark.parametrize("text", [None, "", "12", '{"until": 3}'])
def test_an_unreadable_state_is_a_new_state(text: str | None) -> None:
    assert from_text(text, BOUND) == NEW


def test_looks_without_labels_change_nothing() -> None:
    alarmed = update_state(NEW, [0.0] * 40, 40, RULES)
    assert update_state(alarmed, [], 40, RULES) == alarmed


def test_looks_in_a_row_are_counted_until_one_is_silent() -> None:
    first = update_state(NEW, [0.0] * 40, 40, RULES)
    second = update_state(first, [0.0], 41, RULES)
    silent = update_state(second, [1.0] * 2000, 2041, RULES)
    assert [each.alarms for each in (NEW, first, second, silent)] == [0, 1, 2, 0]
    assert [each.alarmed_by for each in (NEW, first, second, silent)] == [None, 40, 40, None]


def test_an_early_alarm_is_known_as_one_where_the_look_brought_many_labels() -> None:
    assert update_state(NEW, [0.0] * 300, 300, RULES).alarmed_by == RULES.window
    late = update_state(NEW, [1.0] * 250 + [0.0] * 50, 300, RULES)
    assert (late.alarms, late.alarmed_by) == (1, 300)


def test_another_bound_begins_anew_with_what_comes_next() -> None:
    alarmed = update_state(NEW, [0.0] * 40, 40, RULES)
    moved = with_bound(alarmed, 0.7)
    assert moved == DetectorState(new_detector(0.7), until=40, labels=40, total=0.0)
    assert with_bound(alarmed, BOUND) is alarmed
    other_stakes = replace(alarmed, detector=replace(alarmed.detector, held=(1.0, 2.0)))
    assert with_bound(other_stakes, BOUND).detector == new_detector(BOUND)

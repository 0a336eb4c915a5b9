from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_jsonable_python

from perpetune.params import WatchParams, load_params
from perpetune.policy.estimated_accuracy import (
    EstimatedFall,
    EstimateError,
    estimate_line,
    estimate_sentences,
    estimates_in,
    most_trusted,
)
from perpetune.policy.label_requests import decide_without_labels, label_decision
from perpetune.policy.retraining import DriftEvidence, RetrainEvidence
from perpetune.policy.verdict import Interval, Outcome, Score, Verdict

PARAMS = load_params(Path("params.yaml"))
WATCH, REFRESH = PARAMS.watch, PARAMS.refresh.model_copy(update={"gpu_hours_per_month": 20.0})
RANK = {"nothing": 0, "ask": 1, "retrain": 2}
SETTINGS = st.sampled_from(["nothing", "ask", "retrain"])


def rules(setting: str) -> WatchParams:
    return WATCH.model_copy(update={"without_labels": setting})


def fallen(low: float, error: float | None = 0.02) -> EstimatedFall:
    """By 5 points more than `low`, the end of its interval; labels have shown its error, None if there were too few."""
    now, then = Score(0.7, Interval(0.66, 0.74), 300), Score(0.9, Interval(0.88, 0.92), 183)
    measured = None if error is None else EstimateError(error, Interval(error - 0.07, error + 0.07), 200, now)
    interval = Interval(low, low + 0.1, 0.98)
    return EstimatedFall(now, then, low + 0.05, interval, WATCH.margin, 0.001, "Welch", error=measured)


def drift(inputs: bool, predictions: bool, judged: bool = True) -> DriftEvidence:
    return DriftEvidence(judged, 300, 183, float(inputs), inputs, predictions, {})


@pytest.mark.parametrize(
    ("setting", "low", "moved", "labelled", "step"),
    [
        ("ask", 0.15, True, 0, "ask"),
        ("retrain", 0.15, True, 0, "retrain"),
        ("nothing", 0.15, True, 0, "nothing"),
        ("retrain", 0.03, True, 0, "nothing"),
        ("retrain", 0.15, False, 0, "nothing"),
        ("retrain", 0.15, True, WATCH.label_requests, "nothing"),
        ("retrain", None, True, 0, "ask"),
    ],
)
def test_a_fall_and_drift_together(setting: str, low: float | None, moved: bool, labelled: int, step: str) -> None:
    estimate = None if low is None else fallen(low)
    assert label_decision(labelled, estimate, drift(False, moved), rules(setting)).step == step


def test_the_reason_names_every_number() -> None:
    (first,) = label_decision(3, fallen(0.15), drift(True, False), rules("ask")).reasons
    assert "fallen by more than the margin of 5.0 points" in first
    assert "70.0 (95% interval 66.0 to 74.0, 300 rows) on the window" in first
    assert "a fall of 20.0 points (98% interval 15.0 to 25.0)" in first


def test_an_estimate_that_labels_have_not_borne_out_asks_for_labels_instead_of_retraining() -> None:
    decision = label_decision(3, fallen(0.15, None), drift(True, False), rules("retrain"))
    assert decision.step == "ask" and "may be so much too low" in decision.reasons[1]
    assert label_decision(3, fallen(0.15), drift(True, False), rules("retrain")).step == "retrain"


@pytest.mark.parametrize(
    ("low", "error", "half_width", "step"),
    [
        (0.15, -0.02, 0.05, "retrain"),  # at least eight points have fallen
        (0.15, -0.02, 0.09, "ask"),  # by few labels it may be 11 too low, and 4 have fallen
        (0.15, 0.10, 0.12, "retrain"),  # too high if anything: even more has fallen
        (0.15, -0.09, 0.12, "ask"),  # not shown to be wrong, as it would be by the point alone
        (0.30, -0.09, 0.12, "retrain"),
    ],
)
def test_an_estimate_is_judged_by_what_labels_leave_possible(
    low: float, error: float, half_width: float, step: str
) -> None:
    found = fallen(low, error)
    assert found.error is not None
    measured = replace(found.error, interval=Interval(error - half_width, error + half_width, 0.95), labels=20)
    found = replace(found, error=measured)
    assert not found.is_wrong
    assert label_decision(3, found, drift(True, False), rules("retrain")).step == step


@pytest.mark.parametrize("error", [0.4, -0.4])
@pytest.mark.parametrize("low", [0.15, -0.1])
def test_an_estimate_that_labels_have_shown_to_be_wrong_decides_nothing(error: float, low: float) -> None:
    """The one that said 78 when labels said 38: as if there was none, whether it has fallen or not."""
    found = [label_decision(3, fallen(low, error), drift(True, False), rules(step)) for step in ("ask", "retrain")]
    assert [each.step for each in found] == ["ask", "ask"]
    assert "decides nothing" in found[0].reasons[0]
    assert label_decision(3, fallen(low, error), drift(False, False), rules("retrain")).step == "nothing"


def test_the_estimate_whose_error_labels_bound_best_decides_whatever_it_says() -> None:
    known, unknown, wrong = fallen(-0.1, 0.01), fallen(0.3, None), fallen(0.3, 0.4)
    assert most_trusted([unknown, wrong, known]) is known and most_trusted([unknown, wrong]) is wrong
    assert most_trusted([unknown, fallen(0.1, None)]) is unknown and most_trusted([]) is None


def test_all_estimates_of_a_record_are_shown_in_a_line_each() -> None:
    """As it is read from a decision record, with what labels said."""
    measured = EstimateError(0.4, Interval(0.33, 0.47), 200, Score(0.3, Interval(0.2, 0.4), 300), 0.78, 0.38)
    judge = replace(fallen(0.15, 0.4), method="judge", error=measured, unreadable=2)
    found = estimates_in(to_jsonable_python({"estimate": fallen(0.15, None), "other_estimates": {"judge": judge}}))
    assert found == [fallen(0.15, None), judge]
    assert [estimate_line(each) for each in found] == [
        "confidence 70.0 (n=300); too few labels to say how wrong it is",
        "judge 70.0 (n=300); said 78.0 on the last 200 labels, which said 38.0: off by 40.0 points, decides nothing",
    ]
    told, blind = estimate_sentences(judge)
    assert "on the last 200 labels it said 78.0 and labels said 38.0: 40.0 points too high" in told
    assert "shown to be more than the margin of 5.0 points, so that it decides nothing" in told
    assert "2 replies have no readable score" in told and "A judge is a model too" in blind
    assert estimates_in({"estimate": {"window": 3}}) == [] == estimates_in({})


def test_an_estimate_is_shown_with_its_error_on_labels_and_what_it_does_not_see() -> None:
    told, blind = estimate_sentences(fallen(0.15, 0.12))
    assert "on the last 200 labels it was 12.0 points too high (95% interval 5.0 to 19.0)" in told
    assert "corrected by that it is 70.0" in told and "sure and wrong" in blind
    assert "too low" in estimate_sentences(fallen(0.15, -0.12))[0]
    assert "too few labels to say how wrong it is" in estimate_sentences(fallen(0.15, None))[0]


LOWS = st.floats(-1, 1)
DRIFTS = st.builds(drift, st.booleans(), st.booleans(), st.booleans()) | st.none()
LABELS = st.integers(0, 200)


@given(labelled=LABELS, moved=DRIFTS, setting=SETTINGS, low=LOWS | st.none())
def test_drift_alone_never_retrains(
    labelled: int, moved: DriftEvidence | None, setting: str, low: float | None
) -> None:
    estimate = None if low is None else fallen(low)
    step = label_decision(labelled, estimate, moved, rules(setting)).step
    if low is None or low <= WATCH.margin:
        assert step != "retrain"
    assert RANK[step] <= RANK[setting]


@given(labelled=LABELS, moved=DRIFTS, setting=SETTINGS, low=LOWS, high=LOWS)
def test_more_confidence_never_requests_more(
    labelled: int, moved: DriftEvidence | None, setting: Literal["ask"], low: float, high: float
) -> None:
    low, high = sorted((low, high))
    surer = label_decision(labelled, fallen(low), moved, rules(setting)).step
    assert RANK[surer] <= RANK[label_decision(labelled, fallen(high), moved, rules(setting)).step]


@given(fewer=LABELS, more=LABELS, moved=DRIFTS, setting=SETTINGS, low=LOWS)
def test_more_labels_never_request_more(
    fewer: int, more: int, moved: DriftEvidence | None, setting: str, low: float
) -> None:
    fewer, more = sorted((fewer, more))
    after = label_decision(more, fallen(low), moved, rules(setting)).step
    assert RANK[after] <= RANK[label_decision(fewer, fallen(low), moved, rules(setting)).step]


@given(labelled=LABELS, setting=SETTINGS, low=LOWS | st.none())
def test_low_confidence_without_drift_starts_nothing(labelled: int, setting: str, low: float | None) -> None:
    estimate = None if low is None else fallen(low)
    for stable in (None, drift(False, False), drift(True, True, judged=False)):
        assert label_decision(labelled, estimate, stable, rules(setting)).step == "nothing"


@pytest.mark.parametrize(
    ("judged", "setting", "since", "hours", "outcome"),
    [
        ("collect more labels", "ask", None, 0, "ask for labels"),
        ("collect more labels", "ask", 1.0, 90, "ask for labels"),
        ("collect more labels", "retrain", None, 0, "retrain"),
        ("collect more labels", "retrain", 240.0, 0, "retrain"),
        ("collect more labels", "retrain", 239.0, 0, "cooling down"),
        ("collect more labels", "retrain", None, 20, "over budget"),
        ("collect more labels", "nothing", None, 0, "collect more labels"),
        ("keep", "ask", None, 0, "ask for labels"),
        ("retrain", "ask", None, 0, "retrain"),
        ("confirming", "retrain", None, 0, "confirming"),
        ("cooling down", "retrain", None, 0, "cooling down"),
    ],
)
def test_decisions_on_labels_come_first(
    judged: Outcome, setting: str, since: float | None, hours: float, outcome: Outcome
) -> None:
    evidence = RetrainEvidence(
        labelled=10,
        labelled_in_all=10,
        decay=None,
        alarms_in_a_row=0,
        drift=drift(True, False),
        minutes_since_refresh=since,
        unsuccessful_refreshes=2,
        device_hours=hours,
        estimate=fallen(0.15),
        labelled_in_window=10,
    )
    verdict = decide_without_labels(Verdict(judged, ("As labels say.",), "A rule."), evidence, rules(setting), REFRESH)
    assert verdict.outcome == outcome
    assert "As labels say." in verdict.reasons
    if outcome != judged:
        assert verdict.reasons[0].startswith("The accuracy estimated from confidence has fallen")
        assert verdict.rule.startswith("A rule. With fewer than 50 labels in the window")

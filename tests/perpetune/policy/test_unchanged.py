from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from perpetune.params import PromoteParams, RefreshParams
from perpetune.policy.retraining import labels_wanted
from perpetune.policy.unchanged import LastRefresh, NewData, Trigger, nothing_new

RULES = RefreshParams(
    cron="0 3 * * 1",
    first_labels=200,
    cooldown_minutes=60,
    new_labels=100,
    growth=0.3,
    backoff_factor=2.0,
    gpu_hours_per_month=None,
)
GATE = PromoteParams()
LAST = LastRefresh(
    ended=datetime(2024, 5, 1, 12, tzinfo=UTC),
    outcome="reject",
    data_version="a",
    rows=900,
    labels=400,
    same_settings=True,
    still_valid=True,
)


@pytest.mark.parametrize("trigger", ["manual", "schedule", "decay"])
def test_the_same_data_is_not_refreshed_again_by_any_trigger(trigger: Trigger) -> None:
    said = nothing_new(LAST, NewData("a", 900, 412), trigger, 0, RULES, GATE)
    assert said == "same data, settings and programs as the refresh of 2024-05-01 12:00 (reject), 12 new labels"


@pytest.mark.parametrize(
    "last",
    [None, replace(LAST, same_settings=False), replace(LAST, still_valid=False), replace(LAST, data_version="b")],
)
def test_other_settings_another_champion_or_other_data_are_worth_a_refresh(last: LastRefresh | None) -> None:
    assert nothing_new(last, NewData("a", 901, 401), "manual", 0, RULES, GATE) is None


@pytest.mark.parametrize(
    ("trigger", "rows", "labels", "unsuccessful", "runs"),
    [
        ("schedule", 1169, 580, 0, False),
        ("schedule", 1170, 580, 0, True),
        ("decay", 990, 499, 0, False),
        ("decay", 990, 500, 0, True),
        ("decay", 990, 500, 1, False),
        ("decay", 1090, 600, 1, True),
        ("manual", 901, 401, 5, True),
    ],
)
def test_automatic_refreshes_wait_for_more(
    trigger: Trigger, rows: int, labels: int, unsuccessful: int, runs: bool
) -> None:
    said = nothing_new(LAST, NewData("b", rows, labels), trigger, unsuccessful, RULES, GATE)
    assert (said is None) is runs
    assert said is None or " since the refresh of 2024-05-01 12:00 (reject)" in said


def test_each_refresh_that_did_not_help_makes_the_next_one_wait_for_more_labels() -> None:
    assert [labels_wanted(count, RULES) for count in range(4)] == [100, 200, 400, 800]
    assert labels_wanted(10_000, RULES) > 10**12


@pytest.mark.parametrize(
    ("trigger", "deciding", "runs"),
    [
        ("schedule", 0, False),
        ("schedule", 100, False),
        ("schedule", 200, True),
        ("schedule", None, True),  # not known, or what serves was never trained
        ("manual", 0, True),
        ("decay", 0, True),
    ],
)
def test_a_schedule_waits_for_rows_that_could_show_a_gain(trigger: Trigger, deciding: int | None, runs: bool) -> None:
    said = nothing_new(LAST, NewData("b", 1300, 700, deciding), trigger, 0, RULES, GATE)
    assert (said is None) is runs
    assert (
        said is None
        or "would more likely miss a gain of 5 points than show it; the last one was the refresh of" in said
    )

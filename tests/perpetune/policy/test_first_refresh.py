from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from perpetune.params import load_params
from perpetune.policy.first_refresh import FirstRefreshEvidence, should_tune_first_version

PARAMS = load_params(Path("params.yaml"))
WATCH, REFRESH = PARAMS.watch, PARAMS.refresh
THRIFTY = REFRESH.model_copy(update={"gpu_hours_per_month": 20.0})
SILENT = WATCH.model_copy(update={"without_labels": "nothing"})
ENOUGH = FirstRefreshEvidence(
    labelled=160, rows=40, minutes_since_refresh=None, unsuccessful_refreshes=0, device_hours=0.0
)


@pytest.mark.parametrize(
    ("changes", "rules", "refresh", "outcome"),
    [
        ({}, WATCH, REFRESH, "retrain"),
        ({"labelled": 159}, WATCH, REFRESH, "ask for labels"),
        ({"labelled": 159}, SILENT, REFRESH, "collect more labels"),
        ({"labelled": 0, "rows": 200}, WATCH, REFRESH, "retrain"),
        ({}, WATCH, REFRESH.model_copy(update={"first_labels": 201}), "ask for labels"),
        ({"minutes_since_refresh": 59.0}, WATCH, REFRESH, "cooling down"),
        ({"minutes_since_refresh": 60.0}, WATCH, REFRESH, "retrain"),
        ({"minutes_since_refresh": 100.0, "unsuccessful_refreshes": 1}, WATCH, REFRESH, "cooling down"),
        ({"device_hours": 20.0}, WATCH, THRIFTY, "over budget"),
    ],
)
def test_the_first_refresh(changes, rules, refresh, outcome) -> None:  # type: ignore[no-untyped-def]
    assert should_tune_first_version(replace(ENOUGH, **changes), rules, refresh).outcome == outcome


def test_the_reason_counts_labels_and_rows() -> None:
    assert should_tune_first_version(ENOUGH, WATCH, REFRESH).reasons[0] == (
        "160 labelled requests and 40 rows are enough for a first tuned version."
    )
    few = should_tune_first_version(replace(ENOUGH, labelled=3), WATCH, REFRESH)
    assert few.reasons[0].endswith("needs 200 labelled requests or rows that no refresh has used, and there are 43.")

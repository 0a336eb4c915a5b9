from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.errors import PerpetuneError
from perpetune.params import RefreshParams, WatchParams, load_params
from perpetune.policy.retraining import (
    LONGEST_COOLDOWN,
    ColumnDrift,
    Decay,
    DriftEvidence,
    MixShift,
    PastRefresh,
    RetrainEvidence,
    cooldown,
    labels_of_change,
    labels_to_follow,
    should_retrain,
)
from perpetune.policy.verdict import Interval, Score, Verdict

PARAMS = load_params(Path("params.yaml"))
WATCH, REFRESH = PARAMS.watch.model_copy(update={"run_length": 10_000}), PARAMS.refresh
RETRAIN_ON_MIX = WATCH.model_copy(update={"mix_shift": "retrain"})
SILENT = WATCH.model_copy(update={"urgent_labels": 0})
PATIENT = WATCH.model_copy(update={"consecutive_checks": 2})
AT_ONCE = REFRESH.model_copy(update={"new_labels": 0})
THRIFTY = REFRESH.model_copy(update={"gpu_hours_per_month": 20.0})
RANK = {
    "collect more labels": 0,
    "keep": 0,
    "ask for labels": 0,
    "mix shift": 1,
    "confirming": 1,
    "cooling down": 2,
    "over budget": 2,
    "retrain": 3,
}


def decay(evidence: float, drop: float = 0.352, bound: float = 0.821, since_fall: int = 1000) -> Decay:
    return Decay(
        window=Score(0.892 - drop, Interval(0.792 - drop, 0.992 - drop), 100),
        reference=Score(0.892, Interval(0.86, 0.92), 600),
        since_release=Score(0.7, Interval(0.64, 0.76), 420),
        drop=drop,
        interval=Interval(drop - 0.1, drop + 0.1),
        margin=WATCH.margin,
        bound=bound,
        evidence=evidence,
        run_length=WATCH.run_length,
        labels_since_fall=since_fall,
        before=Score(0.885, Interval(0.86, 0.91), 920),
        since_fall=Score(0.54, Interval(0.44, 0.64), since_fall),
        early=WATCH.run_length / 12,
    )


MIX, REAL = MixShift("label", 0.02, 0.09, "mixed", 90.0, 40.0), MixShift("label", 0.09, 0.02, "mixed", 90.0, 40.0)


def drift(drifted: bool) -> DriftEvidence:
    columns = {"words": ColumnDrift("ks", 1e-9 if drifted else 0.4, 0.002, drifted)}
    return DriftEvidence(True, 300, 600, float(drifted), drifted, False, columns)


def rank(verdict: Verdict) -> int:
    """The outcome "collect more labels" comes either before decay is found, or after it, to have enough to train on."""
    found = any("has decayed" in reason for reason in verdict.reasons)
    return RANK["cooling down" if found and verdict.outcome == "collect more labels" else verdict.outcome]


DECAYED = RetrainEvidence(
    labelled=100,
    labelled_in_all=420,
    decay=decay(12_400.4),
    alarms_in_a_row=1,
    drift=None,
    minutes_since_refresh=None,
    unsuccessful_refreshes=0,
    device_hours=0.0,
)


@pytest.mark.parametrize(
    ("changes", "rules", "refresh", "outcome"),
    [
        ({}, WATCH, REFRESH, "retrain"),
        ({"labelled": 0}, WATCH, REFRESH, "retrain"),
        ({"decay": decay(9_999)}, WATCH, REFRESH, "keep"),
        ({"decay": decay(9_999), "labelled": 1}, WATCH, REFRESH, "keep"),
        ({"decay": decay(9_999), "labelled": 0}, WATCH, REFRESH, "collect more labels"),
        ({"decay": None, "labelled": 0, "labelled_in_all": 0}, WATCH, REFRESH, "collect more labels"),
        ({"decay": decay(20_000, bound=0.0)}, WATCH, REFRESH, "keep"),
        ({"decay": decay(9_999), "askable": 90}, WATCH, REFRESH, "ask for labels"),
        ({"decay": decay(834), "askable": 1}, WATCH, REFRESH, "ask for labels"),
        ({"decay": decay(833), "askable": 90}, WATCH, REFRESH, "keep"),
        ({"decay": decay(9_999), "askable": 90}, SILENT, REFRESH, "keep"),
        ({"askable": 90}, WATCH, REFRESH, "retrain"),
        ({"decay": replace(decay(12_400), mix=MIX)}, WATCH, REFRESH, "mix shift"),
        ({"decay": replace(decay(12_400), mix=MIX)}, RETRAIN_ON_MIX, REFRESH, "retrain"),
        ({"decay": replace(decay(12_400), mix=REAL)}, WATCH, REFRESH, "retrain"),
        ({"decay": replace(decay(12_400), mix=replace(MIX, evidence=10_000.0))}, WATCH, REFRESH, "retrain"),
        ({"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 245}, WATCH, REFRESH, "retrain"),
        ({"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 244}, WATCH, REFRESH, "keep"),
        ({"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 300}, WATCH, AT_ONCE, "retrain"),
        ({"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 299}, WATCH, AT_ONCE, "keep"),
        ({"decay": decay(0), "labels_of_change": 90, "labels_since_refresh": 199}, WATCH, REFRESH, "keep"),
        ({"decay": decay(0), "labels_of_change": 90, "labels_since_refresh": 200}, WATCH, REFRESH, "retrain"),
        ({"decay": decay(0), "labels_of_change": None, "labels_since_refresh": 900}, WATCH, REFRESH, "keep"),
        ({"decay": decay(0), "labels_of_change": 300}, WATCH, REFRESH, "keep"),
        (
            {"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 399, "unsuccessful_refreshes": 1},
            WATCH,
            REFRESH,
            "keep",
        ),
        (
            {"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 400, "unsuccessful_refreshes": 1},
            WATCH,
            REFRESH,
            "retrain",
        ),
        (
            {"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 4000, "unsuccessful_refreshes": 2},
            WATCH,
            REFRESH,
            "keep",
        ),
        (
            {"decay": decay(0), "labels_of_change": 300, "labels_since_refresh": 300, "device_hours": 20.0},
            WATCH,
            THRIFTY,
            "keep",
        ),
        ({}, PATIENT, REFRESH, "confirming"),
        ({"alarms_in_a_row": 2}, PATIENT, REFRESH, "retrain"),
        ({"minutes_since_refresh": 59.0}, WATCH, REFRESH, "cooling down"),
        ({"labels_since_refresh": 199}, WATCH, REFRESH, "collect more labels"),
        ({"labels_since_refresh": 200}, WATCH, REFRESH, "retrain"),
        ({"labels_since_refresh": 799, "unsuccessful_refreshes": 2}, WATCH, REFRESH, "collect more labels"),
        ({"labels_since_refresh": 900, "decay": decay(12_400, since_fall=199)}, WATCH, REFRESH, "collect more labels"),
        ({"labels_since_refresh": 900, "decay": decay(12_400, since_fall=200)}, WATCH, REFRESH, "retrain"),
        ({"decay": decay(12_400, since_fall=399), "unsuccessful_refreshes": 1}, WATCH, REFRESH, "collect more labels"),
        (
            {
                "decay": decay(12_400, since_fall=90),
                "labels_of_change": 300,
                "labels_since_refresh": 400,
                "unsuccessful_refreshes": 1,
            },
            WATCH,
            REFRESH,
            "retrain",  # as without the alarm
        ),
        ({"minutes_since_refresh": 60.0}, WATCH, REFRESH, "retrain"),
        ({"minutes_since_refresh": 239.0, "unsuccessful_refreshes": 2}, WATCH, REFRESH, "cooling down"),
        ({"minutes_since_refresh": 240.0, "unsuccessful_refreshes": 2}, WATCH, REFRESH, "retrain"),
        ({"device_hours": 500.0}, WATCH, REFRESH, "retrain"),
        ({"device_hours": 19.9}, WATCH, THRIFTY, "retrain"),
        ({"device_hours": 20.0}, WATCH, THRIFTY, "over budget"),
        ({"device_hours": 20.0, "minutes_since_refresh": 1.0}, WATCH, THRIFTY, "over budget"),
    ],
)
def test_only_decay_retrains_and_only_when_nothing_holds_it_up(
    changes: dict[str, Any], rules: WatchParams, refresh: RefreshParams, outcome: str
) -> None:
    assert should_retrain(replace(DECAYED, **changes), rules, refresh).outcome == outcome


def test_decay_is_told_with_scores_intervals_rows_and_what_the_evidence_means() -> None:
    assert should_retrain(DECAYED, WATCH, REFRESH).reasons == (
        "The champion has decayed by more than the margin of 5.0 points: it scores 54.0 (95% interval 44.0 to 64.0, "
        "100 rows) on its newest labels and was promoted with 89.2 (95% interval 86.0 to 92.0, 600 rows), a drop of "
        "35.2 points (95% interval 25.2 to 45.2).",
        "The fall is most likely from 88.5 (95% interval 86.0 to 91.0, 920 rows) to 54.0 (95% interval 44.0 to 64.0, "
        "1000 rows); its evidence is 12,400, and 10,000 raise the alarm: without a change at least 10,000 labels come before "
        "a false alarm, on average.",
        "Over all its labels it scores 70.0 (95% interval 64.0 to 76.0, 420 rows); the interval is valid for any number "
        "of checks.",
    )


@pytest.mark.parametrize(
    ("changes", "rules", "refresh", "reason"),
    [
        ({}, PATIENT, REFRESH, "Decay was found in 1 of the 2 checks in a row that must find it."),
        (
            {"minutes_since_refresh": 90.0, "unsuccessful_refreshes": 2},
            WATCH,
            REFRESH,
            "The last refresh was 90 minutes ago and the cooldown is 240 minutes, increased from 60 after 2 "
            "unsuccessful ones.",
        ),
        (
            {"labels_since_refresh": 30, "decay": decay(12_400, since_fall=31)},
            WATCH,
            REFRESH,
            "The next refresh waits for 170 more labels: 30 of 200 have come since the last one.",
        ),
        (
            {"labels_since_refresh": 700, "decay": decay(12_400, since_fall=31)},
            WATCH,
            REFRESH,
            "The next refresh waits for 169 more labels: 31 of 200 have come since scores began to fall.",
        ),
        (
            {"device_hours": 21.25},
            WATCH,
            THRIFTY,
            "The refreshes of the last 30 days trained for 21.2 device hours, and 20 are allowed.",
        ),
        (
            {"labelled": 0, "decay": None},
            WATCH,
            REFRESH,
            "No answer of the champion was labelled since the last check, after 420 before: collect labels to "
            "test for decay.",
        ),
    ],
)
def test_what_holds_it_up_comes_first(
    changes: dict[str, Any], rules: WatchParams, refresh: RefreshParams, reason: str
) -> None:
    assert should_retrain(replace(DECAYED, **changes), rules, refresh).reasons[0] == reason


def test_the_run_length_is_told_in_time() -> None:
    reasons = should_retrain(replace(DECAYED, labels_per_day=50.0), WATCH, REFRESH).reasons
    assert reasons[1].endswith("before a false alarm, on average (200 days at 50 labels a day).")
    rare = should_retrain(replace(DECAYED, labels_per_day=5.2), WATCH, REFRESH).reasons
    assert rare[1].endswith("on average (5.3 years at 5 labels a day).")


def test_labels_that_are_alike_are_counted() -> None:
    reasons = should_retrain(replace(DECAYED, independent=60), WATCH, REFRESH).reasons
    assert any(reason.startswith("60 of the 100 new labels are independent") for reason in reasons)


def test_a_mix_shift_is_named() -> None:
    reason = should_retrain(replace(DECAYED, decay=replace(decay(12_400), mix=MIX)), WATCH, REFRESH).reasons[0]
    assert reason == (
        "Requests of label mixed have become more frequent, which explains 9.0 points of the fall: within each label the "
        "score fell by 2.0 points, which is not shown to be decay: the evidence of that is 40 of 10,000."
    )


def test_early_evidence_says_what_is_asked_for() -> None:
    reason = should_retrain(replace(DECAYED, decay=decay(2_000), askable=90), WATCH, REFRESH).reasons[0]
    assert reason == (
        "The labels are early evidence of decay, 2,000 of 10,000: 150 requests drawn by lot are to be labelled first, to "
        "confirm or deny it."
    )


def test_drift_says_that_labels_are_wanted() -> None:
    verdict = should_retrain(replace(DECAYED, labelled=0, decay=None, drift=drift(True)), WATCH, REFRESH)
    assert verdict.reasons[1:] == (
        "Inputs drifted (words; 300 rows against 600), which does not trigger a refresh: label some of these requests.",
    )


decays = st.none() | st.builds(
    decay, st.floats(0, 1e100), st.floats(-0.1, 0.79), st.sampled_from([0.0, 0.3, 0.9]), st.integers(0, 500)
)
drifts = st.none() | st.builds(drift, st.booleans())
counts = st.integers(0, 5)
retrainings = st.builds(
    RetrainEvidence, counts, counts, decays, counts, drifts, st.none() | st.floats(0, 1e5), counts, st.floats(0, 50)
).filter(lambda evidence: evidence.decay is not None or not evidence.labelled)
watches = st.sampled_from([WATCH, PATIENT])
refreshes = st.sampled_from([REFRESH, THRIFTY])


def test_a_verdict_says_how_many_labels_arrived_unasked() -> None:
    healthy = replace(DECAYED, decay=decay(10.0), unasked=80)
    reasons = should_retrain(healthy, WATCH, REFRESH).reasons
    assert any(reason.startswith("80 of the 100 labels arrived unasked") for reason in reasons)
    assert not any("unasked" in reason for reason in should_retrain(DECAYED, WATCH, REFRESH).reasons)


def test_labels_without_a_reference_are_no_verdict() -> None:
    """Nothing is known of decay, so a check must not look as if all were well."""
    with pytest.raises(PerpetuneError, match="no recorded score on the reference"):
        should_retrain(replace(DECAYED, decay=None), WATCH, REFRESH)


@given(retrainings, drifts, watches, refreshes)
def test_drift_never_changes_the_outcome(
    evidence: RetrainEvidence, other: DriftEvidence | None, rules: WatchParams, refresh: RefreshParams
) -> None:
    changed = replace(evidence, drift=other)
    assert should_retrain(changed, rules, refresh).outcome == should_retrain(evidence, rules, refresh).outcome


@given(retrainings, st.floats(1, 1e10), st.integers(0, 3), st.integers(0, 50), watches, refreshes)
def test_more_evidence_of_decay_never_ranks_lower(
    evidence: RetrainEvidence, times: float, checks: int, labels: int, rules: WatchParams, refresh: RefreshParams
) -> None:
    if evidence.decay is None:
        return
    more = replace(
        evidence,
        labelled=evidence.labelled + labels,
        labelled_in_all=evidence.labelled_in_all + labels,
        alarms_in_a_row=evidence.alarms_in_a_row + checks,
        decay=replace(evidence.decay, evidence=evidence.decay.evidence * times),
    )
    before, after = (should_retrain(each, rules, refresh) for each in (evidence, more))
    assert rank(after) >= rank(before)


@given(retrainings, st.integers(0, 10), st.floats(0, 100), watches, refreshes)
def test_refreshes_that_did_not_help_and_hours_spent_never_start_one(
    evidence: RetrainEvidence, failures: int, hours: float, rules: WatchParams, refresh: RefreshParams
) -> None:
    spent = replace(
        evidence,
        unsuccessful_refreshes=evidence.unsuccessful_refreshes + failures,
        device_hours=evidence.device_hours + hours,
    )
    if should_retrain(evidence, rules, refresh).outcome != "retrain":
        assert should_retrain(spent, rules, refresh).outcome != "retrain"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1e6), st.floats(1, 1e6))
def test_backing_off_only_lengthens_and_ends_at_30_days(
    failures: int, more: int, minutes: float, back_off: float
) -> None:
    refresh = REFRESH.model_copy(update={"cooldown_minutes": minutes, "back_off": back_off})
    assert (
        minutes <= cooldown(failures, refresh) <= cooldown(failures + more, refresh) <= max(LONGEST_COOLDOWN, minutes)
    )


def test_the_cooldown_doubles() -> None:
    assert [cooldown(failures, REFRESH) for failures in range(4)] == pytest.approx([60, 120, 240, 480])


@given(retrainings, watches, refreshes)
def test_every_reason_is_one_sentence(evidence: RetrainEvidence, rules: WatchParams, refresh: RefreshParams) -> None:
    verdict = should_retrain(evidence, rules, refresh)
    assert verdict.reasons
    for reason in (*verdict.reasons, verdict.rule):
        assert reason[0].isupper()
        assert reason.endswith(".")
        assert ". " not in reason


@pytest.mark.parametrize(
    ("refreshes", "labels"),
    [
        ([], None),
        ([("schedule", 500)], None),
        ([("decay", 500), ("schedule", 900)], None),
        ([("decay", 500)], 500),
        ([("schedule", 400), ("decay", 600)], 200),
        ([("schedule", 400), ("decay", 600), ("decay", 800)], 400),
        ([("decay", 100), ("schedule", 400), ("decay", 600)], 200),
        ([("schedule", 400), ("decay", 20_000, 220)], 220),
        ([("schedule", 400), ("decay", 20_000, 220), ("decay", 20_300)], 520),
        ([("schedule", 400), ("decay", 20_000, 220), ("decay", 20_300, 90)], 520),
        ([("schedule", 400), ("decay", 600, 450)], 200),
        ([("decay", 500, 210)], 210),
    ],
)
def test_the_labels_of_a_change_came_since_scores_fell_or_else_after_the_refresh_before_it(
    refreshes: list[tuple[str, int] | tuple[str, int, int]], labels: int | None
) -> None:
    assert labels_of_change([PastRefresh(*each) for each in refreshes]) == labels


def test_what_follows_comes_as_often_as_it_is_worth() -> None:
    """With gains that fall with the logarithm each wait loses as much as the one before."""
    known, lost = [200], []
    while len(known) < 6:
        wait = labels_to_follow(known[-1], REFRESH)
        lost.append(sum(log((known[-1] + label) / known[-1]) for label in range(wait)))
        known.append(known[-1] + wait)
    assert known[:4] == [200, 400, 683, 1053]
    assert max(lost) < 1.25 * min(lost), lost


def test_a_refresh_that_follows_says_how_many_labels_have_come() -> None:
    again = replace(DECAYED, decay=decay(0), labels_of_change=300, labels_since_refresh=310)
    assert should_retrain(again, WATCH, REFRESH).reasons[0] == (
        "The last refresh was for decay and had 300 labels of the change; 310 more have come, so that there is as "
        "much to learn again."
    )

from __future__ import annotations

from datetime import UTC, datetime

from perpetune.cli.verdict_lines import NOTHING_TO_CHECK, lines_of, run_as_json, unsaid, verdict_of
from perpetune.policy.decision.record import Decision, Ids
from perpetune.runtime.prefect_api import FlowRun

RUN = FlowRun("1", "watch (manual)", "COMPLETED", "", "http://127.0.0.1:4200/runs/flow-run/1")
WINDOW = {"mean": 0.87, "interval": {"low": 0.79, "high": 0.92, "level": 0.95}, "rows": 100}
KEPT = Decision(
    kind="retraining",
    task="tickets",
    time=datetime(2026, 1, 2, tzinfo=UTC),
    outcome="cooling down",
    reasons=("The last refresh was 20 minutes ago and the cooldown is 60 minutes.", "It has decayed."),
    rule="Retrain if it decayed.",
    evidence={"decay": {"window": WINDOW, "bound": 0.814}, "minutes_since_refresh": 20.0},
    ids=Ids(model_version="3"),
)
LINE = "cooling down: score 87.0 (79 to 92, n=100), threshold 81.4, refresh in 40 min"


def test_a_verdict_is_a_line_and_a_command() -> None:
    assert list(lines_of(KEPT, verbose=False)) == [LINE, "next: `perpetune refresh` starts it now"]


def test_verbose_adds_reasons_rule_and_all_next_steps() -> None:
    line, *others = lines_of(KEPT, verbose=True)
    assert line == LINE
    assert others[:3] == [*KEPT.reasons, "rule: Retrain if it decayed."]
    assert others[3].startswith("next: The first check after the cooldown starts the refresh in 40 minutes")


def test_what_the_log_has_said_is_not_said_again() -> None:
    assert unsaid(KEPT, ["why: somebody asked", LINE], verbose=True) == []
    assert unsaid(KEPT, ["why: somebody asked"], verbose=False) == list(lines_of(KEPT, verbose=False))


def test_a_run_that_decided_nothing_has_the_word_of_its_log() -> None:
    unchanged = "unchanged: 4 of 100 new labels since the refresh of 2026-01-02 10:00 (reject)"
    assert verdict_of(None, ["why: a schedule", unchanged]) == unchanged
    assert unsaid(None, [unchanged], verbose=False) == []
    assert unsaid(None, [], verbose=False) == [NOTHING_TO_CHECK]


def test_json_holds_the_line_and_the_whole_record() -> None:
    shown = run_as_json(KEPT, RUN, [])
    assert (shown["verdict"], shown["id"]) == (LINE, "1")
    assert shown["decision"]["reasons"] == list(KEPT.reasons)
    assert len(shown["next"]) == 1
    assert run_as_json(None, RUN, [])["decision"] is None

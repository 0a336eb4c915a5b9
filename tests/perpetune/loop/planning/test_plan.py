from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perpetune.loop.curate import CuratedData
from perpetune.loop.planning.plan import (
    epochs_of,
    log_holdout_warnings,
    make_plan,
    plan,
    plan_line,
    plan_lines,
    plan_table,
    planned_vs_taken,
    save_durations,
    with_forecast,
)
from perpetune.loop.planning.step_durations import (
    StepDurations,
    Work,
    assumed_durations,
    measured_durations,
    read_durations,
    timed,
    write_durations,
)
from perpetune.records import Example, write_jsonl
from perpetune.tracking.runs import close_run, open_run, read_run

Open = Callable[..., Any]
DURATIONS = StepDurations(train_row=0.25, evaluate_row=0.4, curate=6, decide=2, release=3, labels=27)
WORK = Work({"train": 1000, "validation": 100, "frozen": 300, "recent": 30}, systems=3, tuned=1, labels=27, epochs=2)


def seconds(work: Work = WORK, durations: StepDurations = DURATIONS) -> dict[str, float]:
    return {step.name: step.seconds for step in make_plan(work, durations, "measured").steps}


def test_training_is_planned_to_end_within_its_minutes() -> None:
    assert seconds(replace(WORK, epochs=100))["fine-tune"] > 240
    assert seconds(replace(WORK, epochs=100, minutes=4.0))["fine-tune"] == 240


def test_few_rows_are_trained_on_longer_than_these_minutes() -> None:
    assert seconds(replace(WORK, epochs=3, minutes=4.0, least_epochs=2))["fine-tune"] == 20 + 0.25 * 2000


def test_each_step_has_its_rows_and_its_time() -> None:
    made = make_plan(WORK, DURATIONS, "measured")
    assert [step.name for step in made.steps] == ["curate", "fine-tune", "evaluate", "decide", "release"]
    assert seconds()["fine-tune"] == pytest.approx(20 + 0.25 * 2000)
    assert seconds()["evaluate"] == pytest.approx(20 + 0.4 * (0.1 * 330 + 2 * (80 + 30)))
    lines = plan_lines(made)
    assert "about 10.9 min (measured)" in lines[0]
    assert any("1,000 rows x 2 epochs" in line and "8.7 min" in line and "train.epochs" in line for line in lines)
    assert any("330 rows x 3 systems" in line and "split.frozen" in line for line in lines)
    assert "| evaluate | 330 rows x 3 systems | 2.0 min |" in plan_table(made)
    assert plan_line(made) == ("plan: about 10.9 min (measured): fine-tune 8.7 min, evaluate 2.0 min")


def test_what_answers_every_row_is_planned_with_every_row() -> None:
    """A label head quickly, free text at its length; the requests that are timed come on top."""
    labelled, written = WORK, replace(WORK, labels=0)
    assert WORK.prompted_rows == pytest.approx(0.1 * 330 + 2 * (80 + 30))
    assert replace(labelled, tuned=2).prompted_rows == pytest.approx(2 * 0.1 * 330 + (80 + 30))
    assert written.prompted_rows == pytest.approx(330 + 2 * (80 + 30))
    assert replace(written, timed=60).prompted_rows == written.prompted_rows + 60


def test_more_labels_take_longer_to_evaluate() -> None:
    assert seconds(replace(WORK, labels=150))["evaluate"] > 3 * seconds()["evaluate"]
    assert seconds(replace(WORK, labels=150))["fine-tune"] == seconds()["fine-tune"]


def test_the_training_corrects_the_plan_and_nothing_else() -> None:
    made = make_plan(WORK, DURATIONS, "guessed")
    better = with_forecast(made, 60.0)
    assert better.seconds == pytest.approx(made.seconds - seconds()["fine-tune"] + 60)
    assert "corrected" in plan_lines(better)[0]


def test_what_was_measured_is_what_is_planned_next() -> None:
    taken = {"curate": 9.0, "fine-tune": 320.0, "evaluate": 218.0, "decide": 1.0}
    found = measured_durations(WORK, taken, DURATIONS, training=300.0)
    again = seconds(durations=found)
    assert {name: again[name] for name in taken} == pytest.approx(taken)
    assert again["release"] == DURATIONS.release, "nothing was released, so nothing was measured"


def test_a_training_that_was_over_before_says_nothing_of_its_pace() -> None:
    taken = {"curate": 9.0, "fine-tune": 0.2, "evaluate": 218.0}
    assert measured_durations(WORK, taken, DURATIONS, training=300.0).train_row == DURATIONS.train_row


def test_the_end_says_planned_and_taken() -> None:
    said = planned_vs_taken(make_plan(WORK, DURATIONS, "measured"), {"curate": 9.0, "fine-tune": 300.0})
    assert said == "took 5.2 min, planned 8.8 min (curate 9 s of 6 s, fine-tune 5.0 min of 8.7 min)"


def test_time_is_added_up() -> None:
    taken: dict[str, float] = {}
    for _ in range(2):
        with timed(taken, "curate"):
            time.sleep(0.02)
    assert 0.04 <= taken["curate"] < 5


def rows(count: int, chars: int, label: str = "good") -> list[Example]:
    return [
        Example(input=f"{n} ".ljust(chars, "x"), output=label, id=str(n), group=str(n), source="s")
        for n in range(count)
    ]


def test_a_guess_grows_with_the_rows_and_shrinks_with_the_cores(releases: Open) -> None:
    params = releases().workspace.params
    short, long = (assumed_durations(params, rows(5, chars), 3, 2) for chars in (40, 4000))
    assert long.train_row > 5 * short.train_row
    assert assumed_durations(params, rows(5, 40), 3, 4).train_row == pytest.approx(short.train_row / 2)
    assert assumed_durations(params, [], 0, 1).evaluate_row > 0


def test_epochs_that_the_training_finds_are_assumed(releases: Open) -> None:
    params = releases().workspace.params
    fixed = params.train.model_copy(update={"epochs": 2.0})
    found = params.train.model_copy(update={"epochs": "auto"})
    assert epochs_of(params.model_copy(update={"train": fixed})) == 2.0
    assert epochs_of(params.model_copy(update={"train": found})) == 3.0


def test_the_pace_is_kept_for_the_task_and_a_broken_file_is_none(releases: Open) -> None:
    workspace = releases().workspace
    assert read_durations(workspace) is None
    write_durations(workspace, DURATIONS)
    assert read_durations(workspace) == DURATIONS
    file: Path = workspace.home / "durations.json"
    file.rename(workspace.home / "pace.json")
    assert read_durations(workspace) == DURATIONS, "the file's former name is read"
    file.write_text('{"other": {"train_row": "?"}}')
    assert read_durations(workspace) is None
    write_durations(workspace, DURATIONS)
    assert read_durations(workspace) == DURATIONS


def test_a_workspace_is_planned_and_what_its_rows_cannot_show_is_kept_in_the_run(releases: Open) -> None:
    world = releases()
    auto = world.workspace.params.train.model_copy(update={"epochs": "auto", "batch_size": 8})
    workspace = replace(world.workspace, params=world.workspace.params.model_copy(update={"train": auto}))
    splits = {"train": rows(80, 40) + rows(20, 40, "bad"), "validation": [], "frozen": rows(25, 40), "recent": []}
    for name, examples in splits.items():
        write_jsonl(workspace.split(name), examples)
    curated = CuratedData("abc", {name: len(examples) for name, examples in splits.items()}, 0)
    first = plan(workspace, curated)
    assert (first.work.systems, first.work.labels) == (3, 2)
    assert first.work.epochs == pytest.approx(72 * 8 / 100), "72 steps at least, of 8 rows"
    assert "before the first refresh" in first.source
    save_durations(workspace, first, {"curate": 1.0, "fine-tune": 40.0, "evaluate": 60.0, "decide": 1.0}, 30.0)
    second = plan(workspace, curated)
    assert "measured" in second.source
    assert {step.name: step.seconds for step in second.steps}["evaluate"] == pytest.approx(60.0)
    run = open_run(world.task, "refresh", {"perpetune.kind": "refresh"}, {})
    said = log_holdout_warnings(workspace, run, curated)
    close_run(run, succeeded=True)
    assert said[0].short == "The frozen holdout has 25 of 50 rows needed for a verdict (promote.min_rows)."
    assert "bad (0)" in said[1].short, "a label that no holdout has is the rarest"
    assert read_run(run.id).tags["holdout.warnings"] == " ".join(map(str, said))

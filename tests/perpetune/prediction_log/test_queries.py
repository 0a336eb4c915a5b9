from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perpetune.errors import PerpetuneError
from perpetune.prediction_log.answers.trial_outcomes import outcomes_of
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import (
    counts,
    labelled_examples,
    labelled_history,
    newly_labelled,
    recent_predictions,
)
from perpetune.prediction_log.tables import VERSION_TABLE, metadata
from perpetune.prediction_log.writes import UnknownRequest, add_feedback, record_rows
from perpetune.records import Feedback, Message, Prediction

Make = Callable[..., Prediction]


def say(prediction: Prediction, minutes: int = 1, **what: object) -> Feedback:
    return Feedback.model_validate(
        {"request_id": prediction.id, "time": prediction.time + timedelta(minutes=minutes), **what}
    )


def rows_of_feedback(log: sqlalchemy.Engine) -> int:
    with log.connect() as connection:
        return int(connection.execute(sqlalchemy.text("select count(*) from feedback")).scalar_one())


def test_what_is_recorded_comes_back(log: sqlalchemy.Engine, prediction: Make) -> None:
    wanted = [prediction(1), prediction(2, group="ann", confidence=None, output="bad 😀\n")]
    record_rows(log, wanted)
    assert recent_predictions(log, "reviews", limit=None) == wanted


def test_recording_again_changes_nothing(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [prediction(1)])
    record_rows(log, [prediction(1, output="other"), prediction(2)])
    assert [row.output for row in recent_predictions(log, "reviews", limit=None)] == ["good", "good"]


def test_recent_are_the_newest_oldest_first(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [prediction(number) for number in (3, 1, 5, 2, 4)])
    assert [row.id for row in recent_predictions(log, "reviews", limit=2)] == ["chatcmpl-4", "chatcmpl-5"]


def test_recent_of_one_task_one_version_and_a_time(log: sqlalchemy.Engine, prediction: Make) -> None:
    later = prediction(3, version="2")
    record_rows(log, [prediction(1), prediction(2, version="2"), later, prediction(4, task="other")])
    assert [row.id for row in recent_predictions(log, "reviews", version="2", limit=None)] == [
        "chatcmpl-2",
        "chatcmpl-3",
    ]
    assert recent_predictions(log, "reviews", since=later.time, limit=None) == [later]


def test_the_newest_row_counts_whatever_the_clocks_say(log: sqlalchemy.Engine, prediction: Make) -> None:
    one = prediction(1)
    record_rows(log, [one])
    add_feedback(log, say(one, minutes=65, label="bad", score=0.25))  # of a gateway whose clock is an hour ahead
    add_feedback(log, say(one, minutes=6, label="good", score=0.5))
    add_feedback(log, say(one, minutes=4, comment="thanks"))
    [row] = recent_predictions(log, "reviews", limit=None)
    assert (row.label, row.score) == ("good", 0.5)
    [(_, _, known)] = labelled_history(log, "reviews")
    assert known == one.time + timedelta(minutes=6)
    [outcome] = outcomes_of(log, "reviews", "1", "champion", one.time, 10)
    assert (outcome.label, outcome.score) == ("good", 0.5)


def test_a_repeat_of_the_newest_word_adds_no_row_and_a_repeat_of_an_older_one_counts(
    log: sqlalchemy.Engine, prediction: Make
) -> None:
    one = prediction(1)
    record_rows(log, [one])
    for minutes, label in ((1, "good"), (2, "good"), (3, "bad"), (4, "good"), (0, "good")):
        add_feedback(log, say(one, minutes=minutes, label=label))
    assert rows_of_feedback(log) == 3
    assert recent_predictions(log, "reviews", limit=None)[0].label == "good"


def test_rows_written_again_after_a_crash_change_nothing(log: sqlalchemy.Engine, prediction: Make) -> None:
    one = prediction(1)
    words = [say(one, minutes=minutes, label=label) for minutes, label in ((1, "good"), (2, "bad"), (3, "good"))]
    record_rows(log, [one, *words])
    add_feedback(log, say(one, minutes=4, label="bad"))
    record_rows(log, [one, *words])
    assert rows_of_feedback(log) == 4
    assert recent_predictions(log, "reviews", limit=None)[0].label == "bad"


def test_feedback_on_an_unknown_request_is_refused(log: sqlalchemy.Engine, prediction: Make) -> None:
    with pytest.raises(UnknownRequest, match="chatcmpl-1"):
        add_feedback(log, say(prediction(1), label="good"))
    assert rows_of_feedback(log) == 0


def test_labelled_examples(log: sqlalchemy.Engine, prediction: Make) -> None:
    long = (
        Message(role="user", content="hello"),
        Message(role="assistant", content="hi"),
        Message(role="user", content="nice film"),
    )
    asked = [
        prediction(1, input="Nice  film"),
        prediction(2, input="nice film", group="ann"),
        prediction(3, input="nice film", messages=long),
        prediction(4),
        prediction(5),
    ]
    record_rows(log, asked)
    for row in asked[:3]:
        add_feedback(log, say(row, label="positive"))
    add_feedback(log, say(asked[3], score=1.0))
    first, second, third = labelled_examples(log, "reviews")
    assert (first.id, first.input, first.output, first.source) == (asked[0].id, "Nice  film", "positive", "traffic")
    assert (first.time, first.messages) == (asked[0].time, ())
    assert second.group == "ann"
    assert first.group == third.group != second.group, "equal inputs without a user share a group"
    assert third.messages == long


def test_each_label_is_new_once_however_late_it_comes(log: sqlalchemy.Engine, prediction: Make) -> None:
    asked = [prediction(number) for number in range(5)]
    record_rows(log, [*asked, prediction(9, version="2")])
    add_feedback(log, say(asked[3], label="good"))
    add_feedback(log, say(asked[4], score=0.5))
    add_feedback(log, say(prediction(9), label="good"))
    first, number = newly_labelled(log, "reviews", "1", 0)
    assert [(row.id, row.label) for row in first] == [("chatcmpl-3", "good")]
    for row, label in ((asked[2], "good"), (asked[3], "bad"), (asked[0], "bad")):
        add_feedback(log, say(row, label=label))
    second, later = newly_labelled(log, "reviews", "1", number)
    assert [row.id for row in second] == ["chatcmpl-2", "chatcmpl-0"], "a corrected label is not new"
    assert newly_labelled(log, "reviews", "1", later) == ([], later)
    last, newest = newly_labelled(log, "reviews", "1", 0, newest=2)
    assert ([row.id for row in last], newest) == (["chatcmpl-2", "chatcmpl-0"], later)


def test_counts(log: sqlalchemy.Engine, prediction: Make) -> None:
    assert counts(log, "reviews").predictions == 0
    asked = [prediction(1), prediction(2), prediction(3, version="2"), prediction(4, task="other")]
    record_rows(log, asked)
    for label in ("good", "bad"):
        add_feedback(log, say(asked[0], label=label))
    add_feedback(log, say(asked[3], label="good", score=1))
    found = counts(log, "reviews")
    assert (found.predictions, found.labelled, found.scored) == (3, 1, 0)
    assert (found.newest, found.versions) == (asked[2].time, {"1": 2, "2": 1})


def test_what_cannot_be_stored_is_replaced(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [prediction(1, input="a\0b", output="\ud800", group="\0")])
    [row] = recent_predictions(log, "reviews", limit=None)
    assert (row.input, row.messages[0].content, row.output, row.group) == ("a\ufffdb", "a\ufffdb", "\ufffd", "\ufffd")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_survives(log: sqlalchemy.Engine, prediction: Make, text: str) -> None:
    task = f"task {text}"
    record_rows(log, [prediction(1, id=task, task=task, input=text, output=text)])
    [row] = recent_predictions(log, task, limit=None)
    assert (row.input, row.output, row.messages[0].content) == (text, text, text)


def test_the_migrations_make_the_tables_that_the_code_expects(log: sqlalchemy.Engine) -> None:
    with log.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": False, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []


def test_opening_again_keeps_the_rows(tmp_path: Path, prediction: Make) -> None:
    url = f"sqlite:///{tmp_path / 'predictions.db'}"
    record_rows(open_log(url), [prediction(1)])
    assert recent_predictions(open_log(url), "reviews", limit=None) == [prediction(1)]


OPEN = """
import sys
from perpetune.prediction_log.database import open_log
with open_log(sys.argv[1]).connect() as connection:
    print(connection.exec_driver_sql("pragma journal_mode").scalar_one())
"""


@pytest.mark.slow
def test_several_processes_may_open_it_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path / 'new' / 'predictions.db'}"]
    opening = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [each.communicate(timeout=60)[0].strip() for each in opening] == ["wal"] * 6


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense secret", "not a database URL"),
        ("mysql://ann:secret@db/x", "PostgreSQL and SQLite files"),
        ("sqlite://", "PostgreSQL and SQLite files"),
        ("postgresql://ann:sec@ret@127.0.0.1/x", "%40"),
        ("postgresql://ann:secret@127.0.0.1:1/x", "cannot be opened"),
        ("postgresql://127.0.0.1:1/x?user=ann&password=secret", "cannot be opened"),
        ("sqlite:////proc/nowhere/predictions.db", "cannot be created"),
        ("sqlite:////tmp", "cannot be created|cannot be opened"),
    ],
)
def test_a_log_that_cannot_be_had_is_one_clear_error_without_secrets(url: str, says: str) -> None:
    with pytest.raises(PerpetuneError, match=says) as caught:
        open_log(url)
    assert "sec" not in str(caught.value).replace("PASSWORD", "")


def test_a_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "predictions.db").write_text("not a database " * 100)
    with pytest.raises(PerpetuneError, match="file is not a database"):
        open_log(f"sqlite:///{tmp_path / 'predictions.db'}")


def test_a_log_of_a_newer_perpetune(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    open_log(f"sqlite:///{path}").dispose()
    with sqlite3.connect(path) as newer:
        newer.execute(f"update {VERSION_TABLE} set version_num = '9999'")
    with pytest.raises(PerpetuneError, match="newer perpetune"):
        open_log(f"sqlite:///{path}")


def test_a_deleted_file_is_an_error_and_never_a_silent_loss(
    log: sqlalchemy.Engine, tmp_path: Path, prediction: Make
) -> None:
    record_rows(log, [prediction(1)])
    path = tmp_path / "log" / "predictions.db"
    path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(sqlalchemy.exc.OperationalError, match="unable to open"):
        record_rows(log, [prediction(2)])
    assert not path.exists()

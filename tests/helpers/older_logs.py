"""A prediction log as an older perpetune left it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import sqlalchemy
from alembic import command
from alembic.config import Config

from perpetune.prediction_log.database import writing
from perpetune.prediction_log.labels.admission import admit, newly_admitted
from perpetune.prediction_log.labels.requests import Drawn, open_requests, request_labels
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Feedback, Prediction


def downgrade(log: sqlalchemy.Engine, revision: str) -> None:
    """Take the tables back to a revision; their rows stay."""
    config = Config()
    config.set_main_option("script_location", str(files("perpetune.prediction_log") / "migrations"))
    with writing(log) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def check_provenance_of_older_labels(
    log: sqlalchemy.Engine, reopen: Callable[[], sqlalchemy.Engine], prediction: Callable[..., Prediction]
) -> None:
    """A log of five answers: labels drawn at random, for doubt, and unasked, then taken back, upgraded and gone on with."""
    asked = [prediction(number, task="older", id=f"older-{number}") for number in range(5)]
    record_rows(log, asked)
    reasons = [
        Drawn(asked[0].id, "lot", 0.5, 1.0),
        Drawn(asked[1].id, "doubt", 0.5, 0.7),
        Drawn(asked[4].id, "disagreement"),
    ]
    request_labels(log, reasons, asked[0].time, undrawn={asked[1].id: 0.5})
    for row in asked[:3]:
        add_feedback(log, Feedback(request_id=row.id, time=row.time, label="good"))
    downgrade(log, "0006")
    with log.connect() as connection:
        rows = connection.exec_driver_sql("select request_id, why from label_requests where request_id like 'older-%%'")
        assert {row[0]: row[1] for row in rows} == {
            "older-0": "random",
            "older-1": "uncertain",
            "older-4": "uncertain",
        }
        number = connection.exec_driver_sql("select max(id) from feedback where request_id = 'older-2'").scalar_one()
    log.dispose()

    upgraded = reopen()
    found = {row.id: (row.chosen, row.weight) for row in recent_predictions(upgraded, "older", limit=None)}
    assert found == {
        "older-0": ("lot", 1.0),
        "older-1": ("doubt", None),
        "older-2": ("unasked", None),
        "older-3": (None, None),
        "older-4": ("doubt", None),
    }
    assert [each.why for each in open_requests(upgraded, "older")] == ["doubt"]
    judged, until = newly_admitted(upgraded, "older", "1", 0)
    assert [row.id for row in judged] == ["older-0", "older-2"], "what checks had read, and nothing drawn for doubt"
    assert until == number, "under the numbers that they had read it by"
    request_labels(upgraded, [Drawn("older-3", "lot", 0.5, 1.0)], asked[3].time)
    add_feedback(upgraded, Feedback(request_id="older-3", time=asked[3].time, label="good"))
    assert admit(upgraded, "older", "1", asked[3].time) == 1
    assert [row.id for row in newly_admitted(upgraded, "older", "1", until)[0]] == ["older-3"]
    upgraded.dispose()

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.params import Params
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Example, Feedback, Message, Prediction, write_jsonl
from perpetune.replay.histories.recorded import recorded_history
from perpetune.settings import Settings
from perpetune.workspace import Workspace

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def answered(position: int, params: Params) -> Prediction:
    return Prediction(
        id=f"request-{position}",
        time=NOON + timedelta(hours=position),
        task=params.task.name,
        version="1",
        messages=(Message(role="user", content=f"text {position}"),),
        input=f"text {position}",
        output="positive",
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1,
        confidence=0.8,
    )


def test_labelled_requests_of_the_log_are_a_history(tmp_path: Path, params: Params) -> None:
    workspace = Workspace(tmp_path, params, Settings(database_url=f"sqlite:///{tmp_path / 'log.db'}"))
    with pytest.raises(PerpetuneError, match="no labelled request yet"):
        recorded_history(workspace)
    log = open_log(workspace.settings.prediction_log)
    record_rows(log, [answered(position, params) for position in range(3)])
    for position, day, label in ((2, 1, "negative"), (0, 2, "mixed"), (0, 3, "positive")):
        add_feedback(log, Feedback(request_id=f"request-{position}", time=NOON + timedelta(days=day), label=label))
    log.dispose()

    first, second = recorded_history(workspace).requests
    assert (first.example.input, first.example.output, first.label_time) == (
        "text 0",
        "positive",
        NOON + timedelta(days=3),
    )
    assert (second.example.output, second.answer, second.confidence) == ("negative", "positive", 0.8)
    assert second.time == NOON + timedelta(hours=2)


def test_the_first_model_is_trained_without_traffic(tmp_path: Path, params: Params) -> None:
    workspace = Workspace(tmp_path, params, Settings(database_url=f"sqlite:///{tmp_path / 'log.db'}"))
    log = open_log(workspace.settings.prediction_log)
    record_rows(log, [answered(0, params)])
    add_feedback(log, Feedback(request_id="request-0", time=NOON + timedelta(days=1), label="negative"))
    log.dispose()
    sources = ("file", "traffic", "traffic in doubt")
    rows = [Example(input=each, output="positive", id=each, group=each, source=each) for each in sources]
    write_jsonl(workspace.split("train"), rows)

    assert [row.source for row in recorded_history(workspace).initial] == ["file"]

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy
from predictions import answered
from typer.testing import CliRunner, Result

from perpetune.cli import app
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import Drawn, request_labels
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Feedback, Prediction

ROOT = Path(__file__).parents[4]
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlalchemy.Engine]:
    """That of a workspace in which the labels of three requests are wanted."""
    for name in ("PERPETUNE_HOME", "PERPETUNE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    log = open_log(f"sqlite:///{tmp_path / '.perpetune' / 'predictions.db'}")
    record_rows(log, [film(number) for number in range(5)])
    request_labels(log, [Drawn("r1", "lot", weight=1.0), Drawn("r2", "doubt"), Drawn("r3", "doubt")], NOON)
    yield log
    log.dispose()


def film(number: int) -> Prediction:
    return answered(f"r{number}", f"A [b]film {number}", "positive", task="reviews", time=NOON, confidence=0.6)


def labels(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["labels", *arguments])


def test_what_is_wanted_is_listed(log: sqlalchemy.Engine) -> None:
    said = labels()
    assert said.exit_code == 0
    assert "3 label requests" in said.output and "A [b]film 2" in said.output
    wanted = json.loads(labels("--json").stdout)["wanted"]
    assert wanted[1] == {
        "request_id": "r2",
        "input": "A [b]film 2",
        "answer": "positive",
        "confidence": 0.6,
        "why": "doubt",
        "urgent": False,
    }


def test_labels_are_counted_by_how_they_came(log: sqlalchemy.Engine) -> None:
    assert json.loads(labels("--json").stdout)["labels"] == {}
    for number, propensity in ((0, None), (1, None), (2, None), (4, 0.5)):
        add_feedback(log, Feedback(request_id=f"r{number}", time=NOON, label="negative", propensity=propensity))
    assert json.loads(labels("--json").stdout)["labels"] == {"lot": 2, "doubt": 1, "unasked": 1}
    assert "labels so far: 2 by lot, 1 for doubt, 1 unasked" in labels().output


def test_a_file_goes_out_and_comes_back_filled_in(log: sqlalchemy.Engine) -> None:
    assert "3 requests in wanted.jsonl" in labels("--out", "wanted.jsonl").output
    file = Path("wanted.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["request_id"], row["label"]) for row in rows] == [("r1", ""), ("r2", ""), ("r3", "")]
    for row, label in zip(rows, ("negative", "positive", " "), strict=True):
        row["label"] = label
    file.write_text("\n".join(json.dumps(row) for row in rows))
    for _ in range(2):
        assert "2 labels imported, 1 rows without a label" in labels("--bring", "wanted.jsonl").output
    kept = {row.id: row.label for row in recent_predictions(log, "reviews", limit=None)}
    assert kept == {"r0": None, "r1": "negative", "r2": "positive", "r3": None, "r4": None}
    assert [row["request_id"] for row in json.loads(labels("--json").stdout)["wanted"]] == ["r3"]


def test_bad_rows_are_named_by_line_and_cost_no_good_one(log: sqlalchemy.Engine) -> None:
    rows = [
        '{"request_id": "r1", "label": "negative"}',
        "{broken",
        '{"request_id": "gone", "label": "negative"}',
        '{"request_id": "r2", "label": 3}',
        '{"label": "negative"}',
        '{"request_id": "r3", "label": " Positive"}',
        '{"request_id": "r1", "label": "thumbs_up"}',
    ]
    Path("mine.jsonl").write_text("\n".join(rows))
    said = labels("--bring", "mine.jsonl")
    assert said.exit_code == 0
    assert "2 labels imported" in said.output and "5 rows rejected" in said.output
    for line, words in (
        (2, "broken JSON"),
        (3, "request_id: there is no request 'gone'"),
        (4, "label: must be text, got 3"),
        (7, "label: 'thumbs_up' is not one of the task's labels: positive, negative"),
    ):
        assert f"mine.jsonl:{line}: {words}" in said.output
    assert "mine.jsonl:5: request_id: missing" in said.output
    found = json.loads(labels("--bring", "mine.jsonl", "--json").stdout)
    assert (found["brought"]["labels"], found["wanted"][0]["request_id"]) == (2, "r2")
    assert [row["line"] for row in found["brought"]["rejected"]] == [2, 3, 4, 5, 7]


def test_personal_data_in_a_label_is_not_stored(log: sqlalchemy.Engine) -> None:
    params = Path("params.yaml")
    params.write_text(
        params.read_text().replace("redact: false", "redact: true").replace("classification", "generation", 1)
    )
    Path("mine.jsonl").write_text('{"request_id": "r1", "label": "write to ann@example.org"}')
    assert labels("--bring", "mine.jsonl").exit_code == 0
    assert recent_predictions(log, "reviews", limit=None)[1].label == "write to <EMAIL_ADDRESS>"


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("", "empty"), ("[1]", "JSON list")])
def test_a_file_that_is_none(log: sqlalchemy.Engine, content: str | None, words: str) -> None:
    if content is not None:
        Path("mine.jsonl").write_text(content)
    said = labels("--bring", "mine.jsonl")
    assert said.exit_code == 1
    assert words in said.stderr

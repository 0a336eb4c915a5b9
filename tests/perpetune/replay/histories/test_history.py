from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from perpetune.errors import PerpetuneError
from perpetune.replay.histories.history import between, read_history, with_initial_examples
from perpetune.replay.histories.reviews import stream_named

ROWS: list[dict[str, object]] = [
    {"input": "b", "output": "no", "time": "2024-01-02T00:00:00Z", "change": True},
    {"input": "a", "output": "yes", "time": "2024-01-01T00:00:00Z", "label_time": "2024-01-05T00:00:00Z"},
    {"input": "c", "output": "no", "time": "2024-01-03T00:00:00Z", "answer": "yes", "confidence": 0.75},
]


def written(folder: Path, rows: list[dict[str, object]], suffix: str) -> Path:
    path = folder / f"history{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_are_put_in_order_of_time(tmp_path: Path, suffix: str) -> None:
    history = read_history(written(tmp_path, ROWS, suffix), timedelta(hours=6))

    assert [request.example.input for request in history.requests] == ["a", "b", "c"]
    assert [request.label_time for request in history.requests] == [
        datetime(2024, 1, 5, tzinfo=UTC),
        datetime(2024, 1, 2, 6, tzinfo=UTC),
        datetime(2024, 1, 3, 6, tzinfo=UTC),
    ]
    assert (history.requests[2].answer, history.requests[2].confidence) == ("yes", 0.75)
    assert history.requests[0].answer is None
    assert history.changes == (datetime(2024, 1, 2, tzinfo=UTC),)
    assert history.ends == datetime(2024, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"time": None}, "time"),
        ({"time": "yesterday"}, "time"),
        ({"label_time": "2023-12-31T00:00:00Z"}, "label_time"),
        ({"label_time": "soon"}, "label_time"),
        ({"confidence": 1.5}, "confidence"),
        ({"confidence": "high"}, "confidence"),
        ({"output": ""}, "output"),
        ({"answer": 3}, "answer"),
    ],
)
def test_bad_rows_are_set_aside_by_line_and_field(tmp_path: Path, fault: dict[str, object], field: str) -> None:
    history = read_history(written(tmp_path, [ROWS[0], {**ROWS[1], **fault}], ".jsonl"))

    assert len(history.requests) == 1
    assert str(history.rejected[0]).startswith(f"history.jsonl:2: {field}: ")


def test_a_file_without_a_valid_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="there is no valid row"):
        read_history(written(tmp_path, [{"input": "a", "output": "b"}], ".jsonl"))


def test_the_earliest_share_is_taught_and_the_rest_replayed(tmp_path: Path) -> None:
    history = with_initial_examples(read_history(written(tmp_path, ROWS, ".jsonl")), 0.3)

    assert [row.input for row in history.initial] == ["a"]
    assert [request.example.input for request in history.requests] == ["b", "c"]
    assert with_initial_examples(history, 0.5) == history


def test_a_period_includes_its_start_and_not_its_end(tmp_path: Path) -> None:
    history = read_history(written(tmp_path, ROWS, ".jsonl"))
    period = between(history, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))

    assert [request.example.input for request in period.requests] == ["a", "b"]
    with pytest.raises(PerpetuneError, match="no request between"):
        between(history, datetime(2025, 1, 1, tzinfo=UTC), None)


def test_a_stream_under_its_former_name_gives_a_warning() -> None:
    assert stream_named("reviews") == "reviews"
    with pytest.warns(FutureWarning, match="`reviews-quiet` is now called `reviews-stable`"):
        assert stream_named("reviews-quiet") == "reviews-stable"
    assert stream_named("history.jsonl") is None

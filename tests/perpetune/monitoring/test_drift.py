from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perpetune.monitoring.drift import drift_report
from perpetune.monitoring.window import INPUT_COLUMNS, Window
from perpetune.params import load_params
from perpetune.records import Example, Prediction

pytestmark = pytest.mark.slow

MONITOR = load_params(Path("params.yaml")).watch
OLD = [f"{'word' * (1 + number % 3)}{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(300)]
NEW = [f"other{word}" for word in OLD]


def texts(rows: int, words: Sequence[str], longest: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=chance.randint(3, longest))) for _ in range(rows)]


def window(
    inputs: Sequence[str],
    outputs: Sequence[str],
    label: str | None = None,
    reference_outputs: Sequence[str] = ("good", "bad"),
    kind: str = "classification",
    confidence: float | None = 0.9,
    users: bool = False,
) -> Window:
    chance = random.Random(7)
    reference = [
        Example(input=text, output=chance.choice(reference_outputs), id=str(number), group=str(number), source="test")
        for number, text in enumerate(texts(400, OLD, 12, seed=1))
    ]
    predictions = [
        Prediction(
            id=str(number),
            time=datetime(2025, 1, 1, number % 24, tzinfo=UTC),
            task="reviews",
            version="3",
            messages=(),
            input=text,
            output=chance.choice(outputs),
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=1,
            confidence=confidence,
            label=label,
            group=f"user {number}" if users else None,
        )
        for number, text in enumerate(inputs)
    ]
    answers = {row.id: (row.output, confidence) for row in reference}
    return Window(predictions, reference, answers, "generation" if kind == "generation" else "classification")


def test_a_quiet_window_has_not_drifted(tmp_path: Path) -> None:
    page = tmp_path / "deep" / "drift.html"
    found = drift_report(window(texts(200, OLD, 12, seed=2), ["good", "bad"], label="good"), MONITOR, page)
    assert found.judged
    assert (found.rows, found.reference_rows) == (200, 400)
    assert not found.inputs_drifted
    assert not found.predictions_drifted
    assert {*INPUT_COLUMNS, "answer", "confidence"} == set(found.columns)
    assert found.columns["words"].test == "ks"
    assert found.columns["words"].threshold == pytest.approx(0.01 / 5)
    assert page.stat().st_size < 2_000_000
    assert "200 predictions" in page.read_text(encoding="utf-8")


def test_other_texts_and_an_answer_never_seen_are_drift(tmp_path: Path) -> None:
    found = drift_report(window(texts(200, NEW, 40, seed=2), ["mixed"]), MONITOR, tmp_path / "drift.html")
    assert found.share >= 0.5
    assert found.inputs_drifted
    assert found.columns["unseen word ratio"].drifted
    assert found.predictions_drifted
    assert found.columns["answer"].drifted
    assert not found.columns["confidence"].drifted


def test_seventy_seven_labels_of_which_most_vanished(tmp_path: Path) -> None:
    labels = [f"intent {number}" for number in range(77)]
    moved = window(texts(200, OLD, 12, seed=2), labels[:10], label=labels[0], reference_outputs=labels)
    found = drift_report(moved, MONITOR, tmp_path / "drift.html")
    assert found.columns["answer"].drifted
    assert not found.inputs_drifted


def test_free_text_without_confidence_is_judged_by_its_length(tmp_path: Path) -> None:
    written = window(texts(200, OLD, 12, seed=2), ["a much longer answer"], kind="generation", confidence=None)
    found = drift_report(written, MONITOR, tmp_path / "drift.html")
    assert "confidence" not in found.columns
    assert found.columns["answer length"].drifted


def test_empty_texts_and_constant_columns_are_judged(tmp_path: Path) -> None:
    found = drift_report(window([""] * 60, ["good"], users=True), MONITOR, tmp_path / "drift.html")
    assert found.columns["characters"].drifted
    assert not found.columns["confidence"].drifted


def test_a_burst_of_equal_requests_is_one_observation(tmp_path: Path) -> None:
    """One that sends the same text 200 times shows nothing about the others."""
    found = drift_report(window([NEW[0]] * 200, ["mixed"]), MONITOR, tmp_path / "drift.html")
    assert not found.judged and (found.rows, found.predictions_drifted) == (1, False)
    of_one = window([f"{text} again" for text in texts(100, OLD, 12, seed=2)] + [NEW[0]] * 150, ["good", "bad"])
    assert not drift_report(of_one, MONITOR, tmp_path / "drift.html").predictions_drifted


@pytest.mark.parametrize("rows", [0, 49])
def test_too_few_rows_are_not_judged_and_the_page_says_so(tmp_path: Path, rows: int) -> None:
    page = tmp_path / "drift.html"
    found = drift_report(window(texts(rows, NEW, 40, seed=2), ["mixed"]), MONITOR, page)
    assert not found.judged
    assert not found.inputs_drifted
    assert not found.predictions_drifted
    assert "Too few rows for a test: each side needs 50." in page.read_text(encoding="utf-8")


def test_tiny_shifts_of_large_windows_do_not_count(tmp_path: Path) -> None:
    shifted = [f"{text} x" if number % 20 == 0 else text for number, text in enumerate(texts(3500, OLD, 12, seed=3))]
    found = drift_report(window(shifted, ["good", "bad"]), MONITOR, tmp_path / "drift.html")
    assert found.columns["words"].threshold < 0.01 / 5
    assert not found.inputs_drifted

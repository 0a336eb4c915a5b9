"""The test of the whole input, on real sentences: products, films and newspapers."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perpetune.curation.readers.reviews import find_wheel, rated_sentences
from perpetune.monitoring.drift import drift_report
from perpetune.monitoring.input_drift import LEVEL, compare_inputs, rows_of_reference, rows_of_window
from perpetune.monitoring.window import Window
from perpetune.params import load_params
from perpetune.policy.retraining import DriftEvidence, InputDrift, RetrainEvidence, should_retrain
from perpetune.records import Example, Prediction

pytestmark = pytest.mark.slow

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
Row = tuple[str, str]


@pytest.fixture(scope="module")
def products() -> dict[str, list[Row]]:
    """Sentences with their review, by review."""
    wheel = find_wheel(Path(__file__).parents[3] / "assets")
    reviews: dict[str, list[Row]] = {}
    for rated in rated_sentences(wheel, "products"):
        reviews.setdefault(rated.group, []).append((rated.text, rated.group))
    return reviews


@pytest.fixture(scope="module")
def films() -> list[Row]:
    return other("films")


def other(kind: str) -> list[Row]:
    found = rated_sentences(find_wheel(Path(__file__).parents[3] / "assets"), "films" if kind == "films" else "news")
    rows = [(rated.text, rated.group) for rated in found]
    random.Random(1).shuffle(rows)
    return rows


def divided(reviews: dict[str, list[Row]], reference: int, window: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Whole reviews, in random order, until both sides have so many rows."""
    names = sorted(reviews)
    random.Random(seed).shuffle(names)
    rows = [row for name in names for row in reviews[name]]
    edge = next(at for at in range(reference, len(rows)) if rows[at][1] != rows[at - 1][1])
    return rows[:edge], rows[edge : edge + window]


def window(reference: Sequence[Row], rows: Sequence[Row]) -> Window:
    examples = [
        Example(input=text, output="good", id=f"r{number}", group=group, source="test")
        for number, (text, group) in enumerate(reference)
    ]
    predictions = [
        Prediction(
            id=f"p{number}",
            time=datetime(2025, 1, 1, tzinfo=UTC),
            task="reviews",
            version="3",
            messages=(),
            input=text,
            output="good",
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=1,
            group=group,
        )
        for number, (text, group) in enumerate(rows)
    ]
    return Window(predictions, examples, {}, "classification")


def run_test(reference: Sequence[Row], rows: Sequence[Row], seed: int = 0) -> InputDrift:
    found = window(reference, rows)
    return compare_inputs(rows_of_window(found), rows_of_reference(found), seed=seed)


@pytest.mark.parametrize(("reference", "rows"), [(600, 300), (300, 100), (100, 60)])
def test_products_turned_to_films_are_found(
    products: dict[str, list[Row]], films: list[Row], reference: int, rows: int
) -> None:
    before, _ = divided(products, reference, rows, seed=1)
    found = run_test(before, films[:rows])
    assert found.drifted and found.p_value <= LEVEL and found.auc > 0.75


def test_newspapers_are_found_too_and_the_report_says_so(products: dict[str, list[Row]], tmp_path: Path) -> None:
    before, _ = divided(products, 600, 300, seed=1)
    found = drift_report(window(before, other("news")[:100]), PARAMS.watch, tmp_path / "drift.html")
    assert found.inputs_drifted and found.inputs is not None and found.inputs.auc > 0.9
    assert found.share < 1, "some columns have not moved"
    page = (tmp_path / "drift.html").read_text()
    assert "Inputs drifted: classifier two-sample test, AUC 0.9" in page
    reason = sentence(found)
    assert (
        reason.startswith("Inputs drifted (") and "a classifier tells inputs of the window from the reference" in reason
    )


def sentence(drift: DriftEvidence) -> str:
    evidence = RetrainEvidence(0, 0, None, 0, drift, None, 0, 0.0)
    return should_retrain(evidence, PARAMS.watch, PARAMS.refresh).reasons[-1]


def test_other_reviews_of_products_alarm_at_most_at_the_level(products: dict[str, list[Row]]) -> None:
    """Sentence by sentence, whole reviews on each side: at the level of 1%, 40 windows have 0.4 alarms on average."""
    found = [run_test(*divided(products, 300, 80, seed), seed) for seed in range(40)]
    assert sum(each.drifted for each in found) <= 2, "three or more have a chance of 0.8%"
    assert sum(each.p_value <= 0.1 for each in found) <= 10, "and p-values are about uniform: 4 on average"


def test_a_healthy_window_is_not_said_to_be_the_same(products: dict[str, list[Row]], tmp_path: Path) -> None:
    found = drift_report(window(*divided(products, 600, 900, seed=3)), PARAMS.watch, tmp_path / "drift.html")
    assert not found.inputs_drifted
    assert sentence(found).startswith("Neither of inputs nor of predictions is drift shown (a classifier tries to tell")
    assert "Drift of the inputs is not shown" in (tmp_path / "drift.html").read_text()


@pytest.mark.parametrize("change", [str.upper, lambda text: text[:20], lambda text: f"{text} {text}", lambda text: ""])
def test_other_forms_of_the_same_sentences_are_drift(products: dict[str, list[Row]], change: object) -> None:
    assert callable(change)
    before, after = divided(products, 900, 600, seed=3)
    assert run_test(before, [(change(text), group) for text, group in after]).drifted


def test_a_script_without_spaces_is_tested(products: dict[str, list[Row]]) -> None:
    chance = random.Random(1)
    old, new = (
        [("".join(chance.choices(letters, k=20)), str(number)) for number in range(80)]
        for letters in ("的一是不了人我在有他", "電腦螢幕鍵盤滑鼠網路")
    )
    assert run_test(old, new).drifted
    assert not run_test(old[:40], old[40:]).drifted


def test_a_check_of_a_few_hundred_rows_takes_seconds_at_most(products: dict[str, list[Row]], films: list[Row]) -> None:
    """About 0.7 seconds on an idle core; the limit allows for a busy one."""
    before, _ = divided(products, 600, 300, seed=1)
    began = time.process_time()
    run_test(before, films[:300])
    assert time.process_time() - began < 4
    long = [("word " * 4000, str(number)) for number in range(1200)]
    began = time.process_time()
    run_test(long, [(f"other {text}", group) for text, group in long])
    assert time.process_time() - began < 30

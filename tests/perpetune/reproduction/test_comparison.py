from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from perpetune.params import EvaluateParams, load_params
from perpetune.reproduction.comparison import (
    AnswerComparison,
    WeightDifference,
    compare_answers,
    compare_curves,
    compare_versions,
    compare_weights,
)

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
QUICK: EvaluateParams = PARAMS.evaluate.model_copy(update={"bootstrap_samples": 50})
RULES = PARAMS.promote.model_copy(update={"margin": 0.05, "min_rows": 50})


def answers(rows: int, other: int) -> AnswerComparison | None:
    """`rows` right answers, `other` of which are wrong the second time."""
    new = ["no"] * other + ["yes"] * (rows - other)
    return compare_answers(["yes"] * rows, new, [1.0] * rows, [float(said == "yes") for said in new], QUICK)


def verdict(found: AnswerComparison | None, digest: str = "b") -> str:
    return compare_versions("a", digest, WeightDifference(0.1, 0.1), (), found, RULES).verdict


def test_bitwise_equal_weights_are_identical() -> None:
    assert compare_versions("a", "a", None, (), None, RULES).verdict == "identical"


def test_equal_needs_enough_rows_and_a_narrow_interval() -> None:
    assert verdict(answers(50, 0)) == "equal", "all rows alike"
    assert verdict(answers(49, 0)) == "different", "too few rows to say so"
    assert verdict(answers(2000, 10)) == "equal", "half a point on many rows is within five"
    assert verdict(answers(100, 4)) == "different", "four points on few rows may be more than five"
    assert verdict(None) == "different"


@given(rows=st.integers(1, 300), first=st.integers(0, 300), second=st.integers(0, 300))
def test_more_wrong_answers_never_make_it_equal(rows: int, first: int, second: int) -> None:
    fewer, more = sorted((min(first, rows), min(second, rows)))
    if verdict(answers(rows, more)) == "equal":
        assert verdict(answers(rows, fewer)) == "equal"


def test_weight_differences(tmp_path: Path) -> None:
    for name, last in (("one", 4.0), ("other", 4.5)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.tensor([3.0, last])}, tmp_path / name / "adapter_model.safetensors")
    assert astuple(compare_weights(tmp_path / "one", tmp_path / "other")) == pytest.approx((0.5, 0.1))
    assert compare_weights(tmp_path / "one", tmp_path / "one") == WeightDifference(0.0, 0.0)
    save_file({"w": torch.zeros(3)}, tmp_path / "other" / "adapter_model.safetensors")
    assert math.isinf(compare_weights(tmp_path / "one", tmp_path / "other").largest)


def test_curves_are_compared_at_common_steps() -> None:
    found = compare_curves("train/loss", {1: 2.0, 2: 1.0, 3: 0.5}, {1: 2.0, 2: 1.25})
    assert (found.largest, found.steps, found.other_steps) == (0.25, 2, 1)

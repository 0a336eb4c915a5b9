"""Compare a reproduced model with the recorded one: weights, loss curves, answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from perpetune.params import EvaluateParams, PromoteParams
from perpetune.statistics.estimate import Estimate, wilson
from perpetune.statistics.paired import PairedComparison, compare


@dataclass(frozen=True)
class WeightDifference:
    """The largest absolute difference of a weight, and the relative difference |new - old| / |old| of all (L2 norm)."""

    largest: float
    relative: float


@dataclass(frozen=True)
class CurveDifference:
    """The largest difference of a loss on the `steps` that both runs have; `other_steps` are in one run only."""

    metric: str
    largest: float
    steps: int
    other_steps: int


@dataclass(frozen=True)
class AnswerComparison:
    """The ratio of frozen rows with the same answer, and the new score minus the recorded one."""

    agreement: Estimate
    score: PairedComparison


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison; `weights` and `answers` are None if the digests are equal."""

    verdict: Literal["identical", "equal", "different"]
    reason: str
    recorded_digest: str
    digest: str
    weights: WeightDifference | None
    curves: tuple[CurveDifference, ...]
    answers: AnswerComparison | None


def compare_versions(
    recorded_digest: str,
    digest: str,
    weights: WeightDifference | None,
    curves: tuple[CurveDifference, ...],
    answers: AnswerComparison | None,
    rules: PromoteParams,
) -> Comparison:
    """Compare the two versions.

    "identical": the weights are bitwise equal. "equal": all of at least promote.min_rows frozen rows have the same answer,
    or the interval of the score difference lies within promote.margin on both sides (two one-sided tests; Schuirmann
    1987, J. Pharmacokinet. Biopharm. 15:657). Otherwise "different".
    """
    verdict, reason = _verdict(recorded_digest == digest, weights, answers, rules)
    return Comparison(verdict, reason, recorded_digest, digest, weights, curves, answers)


def _verdict(
    same: bool, weights: WeightDifference | None, answers: AnswerComparison | None, rules: PromoteParams
) -> tuple[Literal["identical", "equal", "different"], str]:
    if same:
        return "identical", "All weights are bitwise equal."
    largest = "" if weights is None else f"No weight differs by more than {weights.largest:.2g}. "
    if answers is None:
        return "different", f"{largest}The weights differ, and no answers were recorded to compare."
    rows, score = answers.agreement.n, answers.score
    points = f"{100 * score.low:+.1f} to {100 * score.high:+.1f} points"
    if answers.agreement.value == 1 and rows >= rules.min_rows:
        return "equal", f"{largest}All {rows} frozen rows have the same answers."
    if -rules.margin < score.low and score.high < rules.margin:
        within = f"equal within {100 * rules.margin:g} points"
        return "equal", f"{largest}The score on the frozen holdout is {within}: it differs by {points} ({rows} rows)."
    if rows < rules.min_rows:
        return "different", f"{largest}{rows} frozen rows are too few ({rules.min_rows}) to show that they are equal."
    return (
        "different",
        f"{largest}The score on the frozen holdout differs by {points} ({rows} rows), which is not shown to be within {100 * rules.margin:g} points.",
    )


def compare_weights(recorded: Path, new: Path) -> WeightDifference:
    """Compare the safetensors files of two folders; infinite if names or shapes of the tensors differ."""
    old, other = _tensors(recorded), _tensors(new)
    if not old or {name: each.shape for name, each in old.items()} != {n: each.shape for n, each in other.items()}:
        return WeightDifference(math.inf, math.inf)
    differences = {name: (other[name].double() - each.double()) for name, each in old.items()}
    largest = max(float(each.abs().max()) for each in differences.values())
    size = math.sqrt(sum(float(each.double().square().sum()) for each in old.values()))
    distance = math.sqrt(sum(float(each.square().sum()) for each in differences.values()))
    return WeightDifference(largest, distance / size if size else math.inf if distance else 0.0)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: each for file in sorted(folder.glob("*.safetensors")) for name, each in load_file(file).items()}


def compare_curves(metric: str, recorded: Mapping[int, float], new: Mapping[int, float]) -> CurveDifference:
    both = recorded.keys() & new.keys()
    largest = max((abs(new[step] - recorded[step]) for step in both), default=math.nan)
    return CurveDifference(metric, largest, len(both), len(recorded.keys() ^ new.keys()))


def compare_answers(
    recorded: Sequence[str],
    new: Sequence[str],
    recorded_scores: Sequence[float],
    new_scores: Sequence[float],
    params: EvaluateParams,
) -> AnswerComparison | None:
    """Compare answers and scores of the same rows in the same order; None if there are none."""
    if not recorded:
        return None
    equal = sum(one == other for one, other in zip(recorded, new, strict=True))
    return AnswerComparison(
        wilson(equal, len(recorded), params.confidence),
        compare(
            recorded_scores,
            new_scores,
            confidence=params.confidence,
            samples=params.bootstrap_samples,
            seed=params.seed,
        ),
    )

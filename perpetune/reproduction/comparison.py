"""How like a model is to the one on record."""

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
class Weights:
    """The largest difference of any weight, and that of all as a share of their size: |new - old| / |old|."""

    largest: float
    relative: float


@dataclass(frozen=True)
class Curve:
    """The largest difference of the loss at the `steps` that both runs have; `other_steps` only one of them has."""

    metric: str
    largest: float
    steps: int
    other_steps: int


@dataclass(frozen=True)
class Answers:
    """The share of frozen rows that both answer alike, and the new score minus the recorded one."""

    agreement: Estimate
    score: PairedComparison


@dataclass(frozen=True)
class Comparison:
    """What the comparison found; `weights` and `answers` are None where the digests are equal and nothing can differ."""

    verdict: Literal["identical", "equal", "different"]
    reason: str
    recorded_digest: str
    digest: str
    weights: Weights | None
    curves: tuple[Curve, ...]
    answers: Answers | None


def judge(
    recorded_digest: str,
    digest: str,
    weights: Weights | None,
    curves: tuple[Curve, ...],
    answers: Answers | None,
    rules: PromoteParams,
) -> Comparison:
    """Say in words how like they are.

    Not bit for bit the same, they are equal where enough frozen rows (promote.min_rows) are answered alike, all of
    them, or where the interval of the difference in score lies within promote.margin on both sides (the two
    one-sided tests of Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657).
    """
    verdict, reason = _verdict(recorded_digest == digest, weights, answers, rules)
    return Comparison(verdict, reason, recorded_digest, digest, weights, curves, answers)


def _verdict(
    same: bool, weights: Weights | None, answers: Answers | None, rules: PromoteParams
) -> tuple[Literal["identical", "equal", "different"], str]:
    if same:
        return "identical", "Every weight is the same, bit for bit."
    apart = "" if weights is None else f"No weight differs by more than {weights.largest:.2g}. "
    if answers is None:
        return "different", f"{apart}The weights are not the same, and no answers are on record to tell by."
    rows, score = answers.agreement.n, answers.score
    points = f"{100 * score.low:+.1f} to {100 * score.high:+.1f} points"
    if answers.agreement.value == 1 and rows >= rules.min_rows:
        return "equal", f"{apart}All {rows} frozen rows are answered as they were."
    if -rules.margin < score.low and score.high < rules.margin:
        within = f"equal within {100 * rules.margin:g} points"
        return "equal", f"{apart}The score on the frozen holdout is {within}: it differs by {points} ({rows} rows)."
    if rows < rules.min_rows:
        return "different", f"{apart}{rows} frozen rows are too few ({rules.min_rows}) to show that they are equal."
    return (
        "different",
        f"{apart}The score on the frozen holdout differs by {points} ({rows} rows), which is not shown to be within {100 * rules.margin:g} points.",
    )


def compare_weights(recorded: Path, new: Path) -> Weights:
    """Compare what two folders hold in safetensors; infinite where the tensors do not match."""
    old, other = _tensors(recorded), _tensors(new)
    if not old or {name: each.shape for name, each in old.items()} != {n: each.shape for n, each in other.items()}:
        return Weights(math.inf, math.inf)
    apart = {name: (other[name].double() - each.double()) for name, each in old.items()}
    largest = max(float(each.abs().max()) for each in apart.values())
    size = math.sqrt(sum(float(each.double().square().sum()) for each in old.values()))
    distance = math.sqrt(sum(float(each.square().sum()) for each in apart.values()))
    return Weights(largest, distance / size if size else math.inf if distance else 0.0)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: each for file in sorted(folder.glob("*.safetensors")) for name, each in load_file(file).items()}


def compare_curves(metric: str, recorded: Mapping[int, float], new: Mapping[int, float]) -> Curve:
    both = recorded.keys() & new.keys()
    largest = max((abs(new[step] - recorded[step]) for step in both), default=math.nan)
    return Curve(metric, largest, len(both), len(recorded.keys() ^ new.keys()))


def compare_answers(
    recorded: Sequence[str],
    new: Sequence[str],
    recorded_scores: Sequence[float],
    new_scores: Sequence[float],
    params: EvaluateParams,
) -> Answers | None:
    """Row i is the same row in all four; None where there are no rows."""
    if not recorded:
        return None
    alike = sum(one == other for one, other in zip(recorded, new, strict=True))
    return Answers(
        wilson(alike, len(recorded), params.confidence),
        compare(
            recorded_scores,
            new_scores,
            confidence=params.confidence,
            samples=params.bootstrap_samples,
            seed=params.seed,
        ),
    )

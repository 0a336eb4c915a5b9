"""A reproduction on a terminal: progress and result."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from perpetune.reproduction.comparison import Comparison
from perpetune.reproduction.reproduce import Reproduction, reproduce
from perpetune.training.trainer import Progress
from perpetune.workspace import Workspace


def reproduce_on_terminal(workspace: Workspace, version: str, console: Console, *, keep: bool) -> Reproduction:
    """Reproduce with a line for each stage and a status line for the training step."""
    disable_progress_bar()  # it would break the lines
    with console.status(f"reproducing version {version}") as status:

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        def report(progress: Progress) -> None:
            status.update(f"training: step {progress.step}/{progress.steps}, {progress.seconds_left:.0f} s left")
            if progress.step in (1, progress.steps) or progress.validation_loss is not None:
                say(f"training: step {progress.step}/{progress.steps}, loss {progress.loss:.4f}")

        return reproduce(workspace, version, say, report, keep=keep)


def show_reproduction(found: Reproduction, console: Console, *, verbose: bool = False) -> None:
    """The verdict first, then what was compared."""
    comparison = found.comparison
    style = "red" if comparison.verdict == "different" else "green"
    console.print(f"{comparison.verdict}: {_number(comparison)}", style=style, markup=False, soft_wrap=True)
    if verbose:
        console.print(comparison.reason, markup=False, soft_wrap=True)
    table = Table("compared", "result", "on", box=None, pad_edge=False)
    for line in _lines(comparison):
        table.add_row(*line)
    console.print(table)
    if found.folder is not None:
        console.print(f"kept in {found.folder}", markup=False, soft_wrap=True)


def _number(comparison: Comparison) -> str:
    """The verdict's number: the answers' agreement if they were compared, else the weights'."""
    if comparison.answers is not None:
        same = comparison.answers.agreement
        return f"{same.value:.1%} same answers ({100 * same.low:.1f} to {100 * same.high:.1f}, n={same.n})"
    if comparison.weights is not None and math.isfinite(comparison.weights.largest):
        return f"weights at most {comparison.weights.largest:.2g} apart, no answers on record"
    return "every weight the same" if comparison.verdict == "identical" else "other weights, no answers on record"


def _lines(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    yield "adapter", f"{comparison.digest[:12]} against {comparison.recorded_digest[:12]}", "sha256"
    if comparison.weights is not None:
        weights = comparison.weights
        yield "weights", f"largest difference {weights.largest:.2g}, {weights.relative:.2%} relative", ""
    for curve in comparison.curves:
        others = f", {curve.other_steps} steps in one run only" if curve.other_steps else ""
        yield curve.metric, f"largest difference {curve.largest:.2g}", f"{curve.steps} steps{others}"
    if comparison.answers is not None:
        agreement, score = comparison.answers.agreement, comparison.answers.score
        yield (
            "same answers",
            f"{agreement.value:.1%} ({agreement.low:.1%} to {agreement.high:.1%})",
            f"{agreement.n} frozen rows",
        )
        yield (
            "score",
            f"{100 * score.difference:+.1f} points ({100 * score.low:+.1f} to {100 * score.high:+.1f})",
            f"{score.n} frozen rows",
        )

"""A reproduction on a terminal: while it runs, and what it found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from perpetune.reproduction.comparison import Comparison
from perpetune.reproduction.reproduce import Reproduction, reproduce
from perpetune.training.trainer import Progress
from perpetune.workspace import Workspace


def reproduce_aloud(workspace: Workspace, version: str, console: Console, *, keep: bool) -> Reproduction:
    """Reproduce with a line for what is being done and, on a terminal, one for the step that training is at."""
    disable_progress_bar()  # its bar would break the lines
    with console.status(f"reproducing version {version}") as status:

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True)

        def report(progress: Progress) -> None:
            status.update(f"training: step {progress.step}/{progress.steps}, {progress.seconds_left:.0f} s left")
            if progress.step in (1, progress.steps) or progress.validation_loss is not None:
                say(f"training: step {progress.step}/{progress.steps}, loss {progress.loss:.4f}")

        return reproduce(workspace, version, say, report, keep=keep)


def show_reproduction(found: Reproduction, console: Console) -> None:
    """The verdict first, then what was compared."""
    comparison = found.comparison
    style = "red" if comparison.verdict == "different" else "green"
    console.print(f"version {found.version}: {comparison.verdict}. {comparison.reason}", style=style, soft_wrap=True)
    table = Table("compared", "result", "on", box=None, pad_edge=False)
    for line in _lines(comparison):
        table.add_row(*line)
    console.print(table)
    if found.folder is not None:
        console.print(f"kept in {found.folder}", markup=False, soft_wrap=True)


def _lines(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    yield "adapter", f"{comparison.digest[:12]} against {comparison.recorded_digest[:12]}", "sha256"
    if comparison.weights is not None:
        weights = comparison.weights
        yield "weights", f"at most {weights.largest:.2g} apart, {weights.relative:.2%} of their size in all", ""
    for curve in comparison.curves:
        others = f", {curve.other_steps} steps of only one run" if curve.other_steps else ""
        yield curve.metric, f"at most {curve.largest:.2g} apart", f"{curve.steps} steps{others}"
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

"""A reproduction on a terminal: while it runs, and what it found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from perpetune.reproduction.comparison import Likeness
from perpetune.reproduction.reproduce import Reproduction, reproduce
from perpetune.training.trainer import Progress
from perpetune.workspace import Workspace


def reproduce_aloud(workspace: Workspace, version: str, console: Console, *, keep: bool) -> Reproduction:
    """Reproduce with a line for what is being done and, on a terminal, one for the step that training is at."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar would break the lines
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
    likeness = found.likeness
    style = "red" if likeness.verdict == "different" else "green"
    console.print(f"version {found.version}: {likeness.verdict}. {likeness.reason}", style=style, soft_wrap=True)
    table = Table("compared", "result", "on", box=None, pad_edge=False)
    for line in _lines(likeness):
        table.add_row(*line)
    console.print(table)
    if found.folder is not None:
        console.print(f"kept in {found.folder}", markup=False, soft_wrap=True)


def _lines(likeness: Likeness) -> Iterator[tuple[str, str, str]]:
    yield "adapter", f"{likeness.digest[:12]} against {likeness.recorded_digest[:12]}", "sha256"
    if likeness.weights is not None:
        weights = likeness.weights
        yield "weights", f"at most {weights.largest:.2g} apart, {weights.relative:.2%} of their size in all", ""
    for curve in likeness.curves:
        others = f", {curve.other_steps} steps of only one run" if curve.other_steps else ""
        yield curve.metric, f"at most {curve.largest:.2g} apart", f"{curve.steps} steps{others}"
    if likeness.answers is not None:
        agreement, score = likeness.answers.agreement, likeness.answers.score
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

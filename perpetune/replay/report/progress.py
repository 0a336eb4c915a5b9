"""Progress bars of a replay on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Log = Callable[[str], None]
Step = Callable[[str, int], None]


@contextmanager
def progress_bars(console: Console, requests: int) -> Iterator[tuple[Log, Step]]:
    """Two functions: `log` sets the text beside the newest bar, `step` advances the bar of a policy."""
    columns = (
        TextColumn("{task.description:18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", style="dim"),
    )
    shown: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def step(policy: str, count: int) -> None:
            if policy not in shown:
                shown[policy] = progress.add_task(policy, total=requests, doing="")
            progress.update(shown[policy], advance=count, doing="")

        def log(line: str) -> None:
            if shown:
                progress.update(list(shown.values())[-1], doing=line)

        yield log, step

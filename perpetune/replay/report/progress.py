"""How far a replay has come, on a terminal: a bar for each policy, and what is being learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Tell = Callable[[str], None]
Step = Callable[[str, int], None]


@contextmanager
def bars(console: Console, requests: int) -> Iterator[tuple[Tell, Step]]:
    """Two functions: one says what goes on beside the newest bar, one moves the bar of a policy on."""
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

        def tell(line: str) -> None:
            if shown:
                progress.update(list(shown.values())[-1], doing=line)

        yield tell, step

"""The output of the demo: one line for each stage, its title while it runs and then its outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status


@dataclass
class Stage:
    """A stage that lasts. `outcomes` end up behind its title, joined; a terminal shows the newest line meanwhile."""

    head: str
    status: Status | None = None
    outcomes: list[str] = field(default_factory=list)

    def show(self, line: str) -> None:
        if self.status is not None:
            self.status.update(f"{self.head}: {escape(line)}")

    def came(self, outcome: str) -> None:
        self.outcomes.append(outcome)
        self.show(outcome)


@dataclass
class Stages:
    """The stages so far with their seconds, since `began`."""

    console: Console
    began: float
    done: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        began = time.time()
        stage = Stage(f"[bold]{time.strftime('%M:%S', time.gmtime(began - self.began))}[/] {escape(title)}")
        with _shown(stage, self.console):
            yield stage
        self.done.append((title, time.time() - began))


@contextmanager
def _shown(stage: Stage, console: Console) -> Iterator[None]:
    """On a terminal one line, which moves and then stays; elsewhere the title, and at the end a line of outcomes."""
    if not console.is_terminal:
        console.print(stage.head, soft_wrap=True)
        try:
            yield
        finally:
            if stage.outcomes:
                console.print(f"  {escape('; '.join(stage.outcomes))}", soft_wrap=True)
        return
    with console.status(stage.head) as stage.status:
        yield
    outcomes = f": {escape('; '.join(stage.outcomes))}" if stage.outcomes else ""
    console.print(f"{stage.head}{outcomes}", soft_wrap=True)

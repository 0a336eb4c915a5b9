"""What commands share: printing, errors that people can correct, and the services of the workspace."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from perpetune.errors import PerpetuneError
from perpetune.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from perpetune.policy.decision.record import Decision


console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print the reasons, the rule and all next steps too.")]


@contextmanager
def for_people() -> Iterator[None]:
    """Print a PerpetuneError and exit with 1; Ctrl-C and SIGTERM stop all child processes."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except PerpetuneError as fault:
        errors.print(str(fault), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted")
        raise typer.Exit(130) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def services(*, worker: bool, prefect: bool = True) -> Iterator[Workspace]:
    """The workspace with the addresses of its services: those that run, else ones started for this command."""
    from perpetune.model.weights import fetch_wheels
    from perpetune.runtime.up import with_services

    def report(line: str) -> None:
        errors.print(line, markup=False)

    workspace = open_workspace()
    if worker and workspace.settings.prefect_api_url is None:  # its worker runs here
        fetch_wheels(workspace.params.models, workspace.assets)
    with with_services(workspace, worker=worker, report=report, prefect=prefect) as found:
        yield found


@contextmanager
def services_or_none() -> Iterator[Workspace]:
    """The workspace with the address of MLflow, if it answers or can be started; else without."""
    with ExitStack() as stack:
        try:
            workspace = stack.enter_context(services(worker=False, prefect=False))
        except PerpetuneError as fault:
            errors.print(str(fault), style="red", markup=False, soft_wrap=True)
            workspace = open_workspace()
        yield workspace


@contextmanager
def prediction_log() -> Iterator[Engine]:
    """The database of this workspace's gateway."""
    from perpetune.prediction_log.database import open_log

    log = open_log(open_workspace().settings.prediction_log)
    try:
        yield log
    finally:
        log.dispose()


def say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def say_verdict(decision: Decision, verbose: bool) -> None:
    from perpetune.cli.verdict_lines import lines_of

    for line in lines_of(decision, verbose=verbose):
        say(line)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def as_json(decision: Decision | None) -> dict[str, Any] | None:
    return decision.model_dump(mode="json") if decision else None


def shown(path: Path | None) -> str:
    """A path as short as it can be."""
    if path is None:
        return ""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)

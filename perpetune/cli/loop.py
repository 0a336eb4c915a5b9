"""`perpetune refresh`, `watch` and `tune`: manual runs of the loop."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from perpetune.cli.console import Json, Verbose, console, errors, for_people, print_json, services

commands = typer.Typer()


@commands.command(epilog="Example: `perpetune refresh --reason 'a new product line'`")
def refresh(
    reason: Annotated[str, typer.Option(help="Why; shown in Prefect and MLflow.")] = "started manually",
    again: Annotated[
        bool, typer.Option("--again", help="Even if data and settings are those of the last refresh.")
    ] = False,
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Curate, fine-tune, evaluate, decide and, if the challenger passes the gate, release it."""
    run_flow("refresh", {"trigger": "manual", "reason": reason, "again": again}, verbose, json_)


@commands.command(epilog="Example: `perpetune watch`")
def watch(verbose: Verbose = False, json_: Json = False) -> None:
    """Check the newest traffic; decay starts a refresh."""
    run_flow("watch", {"trigger": "manual"}, verbose, json_)


@commands.command(epilog="Example: `perpetune tune --minutes 20 --write`")
def tune(
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Device minutes, for those of params.yaml.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Most trials, for those of params.yaml.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the best settings into params.yaml.")] = False,
    json_: Json = False,
) -> None:
    """Search for a better rank, learning rate and number of epochs within a budget of device minutes."""
    with for_people(), services(worker=False, prefect=False) as workspace:
        from perpetune.params.edit import replace_values
        from perpetune.tuning.terminal import show_tuning, tune_on_terminal
        from perpetune.tuning.tune import with_budget

        found = tune_on_terminal(with_budget(workspace, minutes, trials), errors if json_ else console)
        if json_:
            print_json(asdict(found))
        else:
            show_tuning(found, console)
        if write and found.changes:
            replace_values(workspace.root / "params.yaml", {change.field: change.best for change in found.changes})
            errors.print("written into params.yaml; `perpetune refresh` trains with it")


def run_flow(flow: Literal["refresh", "watch"], parameters: dict[str, object], verbose: bool, json_: bool) -> None:
    """Start a deployment, print its log, and exit as it did."""
    from perpetune.runtime.prefect_api import Prefect

    out, logged = errors if json_ else console, list[str]()
    if verbose:
        parameters = {**parameters, "verbose": True}

    def say(line: str) -> None:
        out.print(line, markup=False, soft_wrap=True)

    def pass_on(line: str) -> None:
        logged.append(line)
        say(f"  {line}")

    with for_people(), services(worker=True) as workspace:
        prefect = Prefect(str(workspace.settings.prefect_api_url))
        run = prefect.start(f"{flow}/{workspace.params.task.name}", parameters)
        say(f"{run.name}: {run.url}")
        # Imported meanwhile, not before: MLflow takes a second, which a run that is refused need not wait for.
        from perpetune.cli.verdict_lines import run_as_json, unsaid
        from perpetune.explain.status import decision_of

        ended = prefect.follow(run, pass_on)
        if fault := ended.fault():
            if json_:
                print_json({**asdict(ended), "decision": None})
            raise fault
        decision = decision_of(workspace, flow, run.id)
        if json_:
            print_json(run_as_json(decision, ended, logged))
            return
        for line in unsaid(decision, logged, verbose=verbose):
            say(line)

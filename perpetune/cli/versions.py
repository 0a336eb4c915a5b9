"""`perpetune status`, `explain`, `reproduce`, `promote`, `approve` and `rollback`: the versions of the model."""

from __future__ import annotations

import getpass
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import (
    Json,
    Verbose,
    as_json,
    console,
    errors,
    for_people,
    print_json,
    say,
    say_verdict,
    services,
    services_or_none,
)
from perpetune.errors import NoPrevious
from perpetune.workspace import open_workspace

commands = typer.Typer()


@commands.command(epilog="Example: `perpetune status --json`")
def status(
    all_: Annotated[bool, typer.Option("--all", help="Every version, not only the newest and those in use.")] = False,
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """One screen: champion, checks, alarms, labels, costs, services. Exits with 1 if a part could not be read."""
    from perpetune.explain.status import read_status, without_temporary
    from perpetune.explain.status_screen import show_status
    from perpetune.runtime.up import is_lasting

    with for_people():
        # A server that hangs is a part that could not be read, not a reason to wait for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        lasting = is_lasting(open_workspace())  # before the addresses of temporary servers are set
        with services_or_none() as workspace:
            found = read_status(workspace, all_versions=all_)
        if not lasting:
            found = without_temporary(found)
        if json_:
            print_json(asdict(found))
        else:
            show_status(found, console, verbose=verbose, all_versions=all_)
        for line in found.unknown:
            errors.print(line, style="red", markup=False, soft_wrap=True)
        if found.unknown:
            raise typer.Exit(1)


@commands.command(epilog="Example: `perpetune explain`, or `perpetune explain 3 --html version-3.html`")
def explain(
    version: Annotated[str, typer.Argument(help="A version number, champion, challenger or previous.")] = "champion",
    html: Annotated[Path | None, typer.Option(help="Write it as one self-contained HTML page.")] = None,
    json_: Json = False,
) -> None:
    """The trigger, data, numbers, approval and costs of a version."""
    from perpetune.explain.gather import gather
    from perpetune.explain.page import write_page
    from perpetune.explain.terminal import as_dict, show_report

    with for_people(), services(worker=False, prefect=False) as workspace:
        story = gather(workspace, version)
        if html is not None:
            write_page(html, story)
            errors.print(f"written to {html}", markup=False)
        if json_:
            print_json(as_dict(story))
        elif html is None:
            show_report(story, console)


@commands.command(epilog="Example: `perpetune reproduce 3 --keep`")
def reproduce(
    version: Annotated[str, typer.Argument(help="A version number.")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the code, the data and the adapter on disk.")] = False,
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Train a version again from its recorded data, settings and code, and compare. Exits with 1 if it differs."""
    from perpetune.reproduction.terminal import reproduce_on_terminal, show_reproduction

    with for_people(), services(worker=False, prefect=False) as workspace:
        found = reproduce_on_terminal(workspace, version, errors if json_ else console, keep=keep)
        if json_:
            print_json(asdict(found))
        else:
            show_reproduction(found, console, verbose=verbose)
    if found.comparison.verdict == "different":
        raise typer.Exit(1)


@commands.command(epilog="Example: `perpetune promote 3 --reason 'we want it, dearer or not'`")
def promote(
    version: Annotated[str, typer.Argument(help="A version number, of any system; `perpetune status` lists them.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the decision record.")],
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Promote a version manually, whatever the gate decided."""
    with for_people(), services(worker=False, prefect=False) as workspace:
        from perpetune.loop.rollout.promote import emit_events, promote_manually

        done = promote_manually(workspace, version, reason)
        emit_events(workspace, done, lambda line: errors.print(line, markup=False))
        if json_:
            print_json({**asdict(done.released), "system": done.system, "decision": as_json(done.decision)})
            return
        say_verdict(done.decision, verbose)
        if done.released.served:
            say(f"version {version} ({done.system}) serves after {done.released.seconds:.1f} s")
        else:
            say(f"version {version} ({done.system}) is champion; no gateway runs: the next one to start serves it")


@commands.command(epilog="Example: `perpetune approve 4 --comment 'read 50 answers'`")
def approve(
    version: Annotated[str, typer.Argument(help="The version that waits for approval.")],
    comment: Annotated[str, typer.Option(help="Why; kept in the decision record.")],
    by: Annotated[
        str,
        typer.Option(
            help="Who approves; recorded as claimed, since anybody may type a name.",
            default_factory=getpass.getuser,
            show_default="your user name",
        ),
    ],
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse it: nothing is released.")] = False,
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Approve the promotion of a version that waits for a person, or refuse it; the worker carries it out."""
    from perpetune.explain.status import decisions_of
    from perpetune.loop.approve import ApprovalResponse, answer_approval
    from perpetune.runtime.prefect_api import Prefect

    with for_people(), services(worker=True) as workspace:
        run = answer_approval(workspace, version, ApprovalResponse(not refuse, by, comment))
        prefect = Prefect(str(workspace.settings.prefect_api_url))
        errors.print(f"{run.name}: {run.url}", markup=False, soft_wrap=True)
        ended = prefect.follow(run, lambda line: errors.print(f"  {line}", markup=False, soft_wrap=True))
        if fault := ended.fault():
            raise fault
        decision = decisions_of(workspace, version)[0]
        if json_:
            print_json(as_json(decision))
        else:
            say_verdict(decision, verbose)


@commands.command(epilog="Example: `perpetune rollback --reason 'it promises refunds'`")
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the decision record.")] = "started manually",
    force: Annotated[bool, typer.Option("--force", help="At once, without asking the previous version first.")] = False,
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Roll back to the previous champion, after it was asked the newest labelled inputs; the answer is shown."""
    from perpetune.loop.rollout.replay import compared_by_gateway
    from perpetune.runtime.gateway_client import NoGateway, gateway_of

    with for_people():
        went = refusal = None
        try:
            # Before anything heavy is imported: the gateway can do it alone.
            if not force:
                errors.print(compared_by_gateway(open_workspace()), markup=False, soft_wrap=True)
            went = gateway_of(open_workspace()).roll_back(reason)
            errors.print(f"version {went.restored} serves again instead of version {went.rolled_back}", markup=False)
        except NoGateway:
            pass
        except NoPrevious as fault:
            refusal = fault
        with services(worker=False, prefect=False) as workspace:
            from perpetune.loop.rollout.rollback import emit_event, move_aliases, record_rollback, with_choices

            if refusal is not None:
                raise with_choices(workspace, refusal)
            done = went or move_aliases(workspace)
            if went is None:
                errors.print("no gateway runs: the next one to start serves the previous champion", markup=False)
            decision = record_rollback(workspace, done, reason)
            emit_event(workspace, done, reason, lambda line: errors.print(line, markup=False))
            if json_:
                print_json({**asdict(done), "reason": reason, "decision": as_json(decision)})
            else:
                say_verdict(decision, verbose)

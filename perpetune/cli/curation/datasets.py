"""`perpetune data`: the rows of the data and their versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from perpetune.cli.console import Json, console, errors, for_people, prediction_log, print_json, services
from perpetune.cli.curation import suspects

commands = typer.Typer(no_args_is_help=True, help="The data that models are trained on: remove, diff, list, suspects.")
commands.add_typer(suspects.commands)


@commands.command(epilog="Example: `perpetune data remove --match 'Jane Doe' --dry-run`")
def remove(
    match: Annotated[str | None, typer.Option(help="Rows with this text, of any case and spacing.")] = None,
    regex: Annotated[bool, typer.Option("--regex", help="--match is a regular expression.")] = False,
    id_: Annotated[str | None, typer.Option("--id", help="The row with this id, or SOURCE:ID.")] = None,
    group: Annotated[str | None, typer.Option(help="All rows of this group.")] = None,
    why: Annotated[str, typer.Option(help="The reason; it is kept beside the hashes of the rows.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Erase rows and their copies: from the inbox, data/, every DVC version and remote, the prediction log and MLflow.

    Hashes of them stay in erased.json, so that they do not come back. Without a selection, an erasure that was
    interrupted is completed.
    """
    from perpetune.audit.actor import actor
    from perpetune.audit.entry import Event
    from perpetune.audit.store import append
    from perpetune.cli.curation.erasure_lines import show_erasure
    from perpetune.erasure.erase import Erasure, complete, erase
    from perpetune.erasure.selection import Selector
    from perpetune.errors import PerpetuneError
    from perpetune.loop.run_context import use_mlflow

    def report(line: str) -> None:
        errors.print(f"  {line}", markup=False)

    with for_people():
        selected = [each for each in (match, id_, group) if each is not None]
        if len(selected) > 1 or (regex and match is None):
            raise typer.BadParameter("one of --match, --id and --group; --regex is for --match")
        if any(not each.strip() for each in selected):
            raise PerpetuneError("an empty text would select every row", do="name a text, an id or a group")
        with services(worker=False, prefect=False) as workspace:
            use_mlflow(workspace)
            done: Erasure | None
            if not selected:
                done = complete(workspace, report)
            else:
                selector = Selector(match=match, regex=regex, id=id_, group=group)
                done = erase(workspace, selector, why, report, dry_run=True) if dry_run or not yes else None
                if not dry_run and (yes or _confirmed(done, json_)):
                    done = erase(workspace, selector, why, report)
        assert done is not None
        if not done.dry_run:
            with prediction_log() as log:
                append(log, Event(actor(), "erased rows", f"erasure {done.id}", {"rows": str(done.rows)}), once=done.id)
        if json_:
            print_json(asdict(done))
        else:
            show_erasure(done, console)
        if done.dry_run and not dry_run:
            raise typer.Exit(1)


def _confirmed(planned: object, json_: bool) -> bool:
    from perpetune.cli.curation.erasure_lines import show_erasure
    from perpetune.erasure.erase import Erasure

    assert isinstance(planned, Erasure)
    if json_:
        return False
    show_erasure(planned, console)
    return typer.confirm("Erase them? This cannot be undone")


@commands.command(epilog="Example: `perpetune data diff 3 now`")
def diff(
    before: Annotated[str, typer.Argument(help="A data version or its beginning, a model version, or `now`.")],
    after: Annotated[str, typer.Argument(help="The other one.")] = "now",
    json_: Json = False,
) -> None:
    """Rows added, removed, and changed in text, label or split between two versions of the data."""
    from perpetune.cli.curation.dataset_lines import show_changes
    from perpetune.curation.rows.changes import row_changes
    from perpetune.loop.data_versions import resolved, splits_of
    from perpetune.loop.run_context import use_mlflow

    with for_people(), services(worker=False, prefect=False) as workspace:
        use_mlflow(workspace)
        one, other = resolved(workspace, before), resolved(workspace, after)
        labelled = workspace.params.task.kind == "classification"
        with splits_of(workspace, one) as old, splits_of(workspace, other) as new:
            found = row_changes(old, new, labelled=labelled)
        if json_:
            print_json({"before": one, "after": other, "changes": [asdict(each) for each in found]})
        else:
            show_changes(one, other, found, console)


@commands.command("list", epilog="Example: `perpetune data list --json`")
def list_(json_: Json = False) -> None:
    """The versions of the data: the one in this folder, and those that models were trained on."""
    from perpetune.cli.curation.dataset_lines import show_versions
    from perpetune.loop.data_versions import data_versions
    from perpetune.loop.run_context import use_mlflow

    with for_people(), services(worker=False, prefect=False) as workspace:
        use_mlflow(workspace)
        found = data_versions(workspace)
        if json_:
            print_json([asdict(each) for each in found])
        else:
            show_versions(found, console)

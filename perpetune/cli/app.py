"""The command line: the commands of each module, under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from perpetune.cli import history, loop, versions
from perpetune.cli.console import console
from perpetune.cli.curation import annotate, datasets, imports, rules
from perpetune.cli.curation import ingest as data
from perpetune.cli.host import (
    alerts,
    audit,
    backup,
    databases,
    doctor,
    keys,
    params,
    retention,
    serve_tasks,
    services,
    workspace,
)
from perpetune.proxies import spare_this_machine

app = typer.Typer(
    help="Keeps a fine-tuned language model good at its task for as long as it is in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for module in (workspace, services, data, loop, versions, doctor, history, retention):
    app.add_typer(module.commands)
app.add_typer(datasets.commands, name="data")
app.add_typer(serve_tasks.commands, name="serve")
app.add_typer(keys.commands, name="keys")
app.add_typer(alerts.commands, name="alerts")
app.add_typer(audit.commands, name="audit")
app.add_typer(databases.commands, name="db")
app.add_typer(backup.commands, name="backup")
app.add_typer(params.commands, name="params")
app.add_typer(imports.commands, name="import")
app.add_typer(annotate.commands, name="annotate")
app.add_typer(rules.commands, name="rules")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.print(f"perpetune {version('perpetune')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What every command takes."""
    spare_this_machine()

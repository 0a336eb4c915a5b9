"""`perpetune keys`: the API keys of the gateway and their roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perpetune.cli.console import Json, console, errors, for_people, prediction_log, print_json, say
from perpetune.errors import PerpetuneError

if TYPE_CHECKING:
    from sqlalchemy import Engine

commands = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)


@commands.command("add", epilog="Example: `perpetune keys add shop --role ask --role feedback`")
def keys_add(
    name: Annotated[str, typer.Argument(help="Who it is for, such as an application.")],
    role: Annotated[
        list[str],
        typer.Option(help="ask, feedback or admin (which may do everything); several may be given."),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task that it may be used for, if not for all; several may be given."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with a key that was made elsewhere, to store instead of a new one.")
    ] = None,
    json_: Json = False,
) -> None:
    """Create a key and print it once: only its digest is stored. From the first key on, every request needs one.

    With `--key-file` the key of the file is stored and nothing is printed; that may be repeated.
    """
    from perpetune.prediction_log.api_keys import add_key, parse_role, register_key

    with for_people():
        roles, tasks = [parse_role(each) for each in role], sorted(set(task or ()))
        details = {"roles": ", ".join(sorted(set(roles))), **({"tasks": ", ".join(tasks)} if tasks else {})}
        with prediction_log() as log:
            if key_file is not None:
                added = register_key(log, name, roles, _read(key_file), tasks)
                if added:
                    _record(log, "added the key", name, details)
                say(f"the key {name} {'was stored' if added else 'is there already'}")
                return
            secret = add_key(log, name, roles, tasks)
            _record(log, "added the key", name, details)
        if json_:
            print_json({"name": name, "roles": sorted(set(roles)), "tasks": tasks, "key": secret})
            return
        for line in (
            "this is the only time that the key is shown; send it as `Authorization: Bearer KEY`",
            "every request needs a key now; ours take one with the role admin from PERPETUNE_API_KEY",
        ):
            errors.print(line, markup=False, soft_wrap=True)
        typer.echo(secret)


def _record(log: Engine, action: str, name: str, details: Mapping[str, str] | None = None) -> None:
    from perpetune.audit.actor import actor
    from perpetune.audit.entry import Event
    from perpetune.audit.store import append

    append(log, Event(actor(), action, name, details or {}))


def _read(file: Path) -> str:
    """The key in a file. Raises PerpetuneError if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise PerpetuneError(f"the key cannot be read: {fault}", where=str(file)) from None


@commands.command("list", epilog="Example: `perpetune keys list --json`")
def keys_list(json_: Json = False) -> None:
    """List all keys, revoked ones included."""
    from rich.table import Table

    from perpetune.prediction_log.api_keys import list_keys

    with for_people():
        with prediction_log() as log:
            found = list_keys(log)
        if json_:
            print_json([asdict(key) for key in found])
            return
        if not found:
            say("there are no keys: the gateway answers every request")
            return
        table = Table("name", "roles", "tasks", "made", "revoked")
        for key in found:
            revoked = f"{key.revoked:%Y-%m-%d %H:%M %Z}" if key.revoked else ""
            tasks = ", ".join(key.tasks) or "all"
            table.add_row(key.name, ", ".join(key.roles), tasks, f"{key.created:%Y-%m-%d %H:%M %Z}", revoked)
        console.print(table)


@commands.command("revoke", epilog="Example: `perpetune keys revoke shop`")
def keys_revoke(name: Annotated[str, typer.Argument(help="The name of the key.")], json_: Json = False) -> None:
    """Revoke a key. Running gateways refuse it within seconds."""
    from perpetune.prediction_log.api_keys import revoke_key

    with for_people():
        with prediction_log() as log:
            key = revoke_key(log, name)
            _record(log, "revoked the key", name)
        if json_:
            print_json(asdict(key))
        else:
            say(f"{key.name} was revoked at {key.revoked:%Y-%m-%d %H:%M:%S %Z}")

"""`perpetune audit`: who decided what, and whether that record is intact."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from perpetune.cli.console import Json, for_people, prediction_log, print_json, say

commands = typer.Typer(help="The log of decisions and administration.", no_args_is_help=True)


@commands.command("show", epilog="Example: `perpetune audit show --after 120`")
def audit_show(
    after: Annotated[int, typer.Option(help="Only entries after this number.", min=0)] = 0,
    json_: Json = False,
) -> None:
    """List the entries, oldest first, each with its time (UTC), who acted, and what."""
    from perpetune.audit.store import entries

    with for_people(), prediction_log() as log:
        if json_:
            print_json([asdict(each) for each in entries(log, after)])
            return
        number = after
        for each in entries(log, after):
            number, event = each.number, each.event
            details = ", ".join(f"{name} {value}" for name, value in event.details.items())
            line = f"{number:>5}  {each.time:%Y-%m-%d %H:%M:%S}  {event.actor}: {event.action} {event.subject}"
            say(f"{line} ({details})" if details else line)
        if number == after:
            say("there are no entries")


@commands.command("verify", epilog="Example: `perpetune audit verify --head 120:9f2c...`")
def audit_verify(
    head: Annotated[
        str | None, typer.Option(help="The last entry of an earlier verification, as it was printed: NUMBER:DIGEST.")
    ] = None,
    json_: Json = False,
) -> None:
    """Check that no entry was changed, removed or inserted. Keep the head elsewhere: it shows if the end is cut off."""
    from perpetune.audit.entry import parse_head, verify
    from perpetune.audit.store import entries

    with for_people(), prediction_log() as log:
        found = verify(entries(log), parse_head(head) if head else None)
        if json_:
            print_json({"entries": found.number, "head": str(found)})
        else:
            say(f"the audit log is intact: {found.number:,} entries, head {found}")

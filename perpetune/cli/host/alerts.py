"""`perpetune alerts`: whether people are told."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

import typer

from perpetune.cli.console import Json, for_people, print_json, say, services
from perpetune.errors import PerpetuneError

commands = typer.Typer(help="Alerts to people.", no_args_is_help=True)


@commands.callback()
def _group() -> None:
    """A group of commands, though there is one only."""


@commands.command("test", epilog="Example: `perpetune alerts test`")
def alerts_test(
    seconds: Annotated[float, typer.Option(min=1, help="How long to wait for the result.")] = 60,
    json_: Json = False,
) -> None:
    """Send a test through every channel, by the way that alerts take. Exits with 1 if one fails."""
    from perpetune.runtime.alerts import send_test

    with for_people(), services(worker=False) as workspace:
        results = send_test(workspace, datetime.now(UTC), time.monotonic() + seconds)
        failed = [each for each in results if each is not None]
        if json_:
            print_json({"sent": len(results) - len(failed), "failed": failed})
        else:
            say(f"sent to {len(results) - len(failed)} of {len(results)} channels")
        if failed:
            counted = "; ".join(
                f"{why} ({times} times)" if times > 1 else why for why, times in Counter(failed).items()
            )
            raise PerpetuneError(
                f"a channel failed: {counted}", where="PERPETUNE_ALERTS", do="try its URL with `apprise -b test URL`"
            )

"""A test of the alerts, by the way that they take: an event, Prefect's automation, a notification."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from perpetune.errors import PerpetuneError
from perpetune.runtime.events import ALERT_TEST
from perpetune.runtime.prefect_api import Prefect
from perpetune.workspace import Workspace

POLL_SECONDS = 0.5


def alert_prefix(task: str) -> str:
    """How the names of the task's automations begin that `perpetune.flows.alerting` registers."""
    return f"perpetune {task}: "


def send_test(workspace: Workspace, since: datetime, until: float) -> Sequence[str | None]:
    """Emit a test event and wait, at most `until` (of `time.monotonic`), until each channel was tried.

    The results: None for each alert that was sent, else why it was not. Raises PerpetuneError if no channel is
    registered, or Prefect has not tried all in time.
    """
    task = workspace.params.task.name
    prefect = Prefect(str(workspace.settings.prefect_api_url))
    name = f"{alert_prefix(task)}test"
    found = [each for each in prefect.automations(alert_prefix(task)) if each["name"] == name]
    if not found:
        raise PerpetuneError(
            "no alerts are set up",
            where="PERPETUNE_ALERTS",
            do="set it to an Apprise URL or the name of a Prefect notification block, and start the worker, or `perpetune up`, again",
        )
    actions = found[0]["actions"]
    wanted = len(actions) if isinstance(actions, list) else 0
    prefect.emit(ALERT_TEST, task, {"reason": "This is a test. Alerts of this model arrive here."})
    results: Sequence[str | None] = []
    while time.monotonic() < until:
        results = prefect.sent(name, since)
        if len(results) >= wanted:
            return results
        time.sleep(POLL_SECONDS)
    raise PerpetuneError(
        f"Prefect has tried {len(results)} of {wanted} channels so far",
        where=prefect.url,
        do="see the automation's events in Prefect's UI",
    )

"""What a worker registers at its start, and again at each start after that, at a real server of Prefect."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prefect.events import AutomationCore
from pydantic import SecretStr

from perpetune.flows.alerting.automations import longest_runs, register_alerts
from perpetune.params import LimitsParams
from perpetune.runtime.alerts import alert_prefix

pytestmark = [pytest.mark.slow]

TASK = "automated"
LIMITS = LimitsParams()
CHANNEL = "json://127.0.0.1:9/"


def registered(address: str) -> dict[str, dict[str, Any]]:
    """As the server has them: its client would read an action of an unknown type as one that does nothing."""
    found = httpx.post(f"{address}/automations/filter", json={"limit": 200}).raise_for_status().json()
    return {each["name"].removeprefix(alert_prefix(TASK)): each for each in found if TASK in each["name"]}


def register(alerts: str | None = CHANNEL, limits: LimitsParams = LIMITS) -> None:
    register_alerts(TASK, SecretStr(alerts) if alerts else None, limits)


def test_a_second_start_leaves_them_as_they_are(prefect: str) -> None:
    """Prefect forgets the heartbeats that it has seen if the automation that waits for the next one changes."""
    register()
    first = registered(prefect)
    register()
    second = registered(prefect)
    assert {name: each["id"] for name, each in first.items()} == {name: each["id"] for name, each in second.items()}
    assert {each["updated"] for each in first.values()} == {each["updated"] for each in second.values()}
    hung = [second[f"end of hung runs of {flow}"] for flow in longest_runs(LIMITS)]
    assert [each["actions"] for each in hung] == [[{"type": "cancel-flow-run"}]] * len(hung)
    assert second["end of dead runs"]["actions"][0]["type"] == "change-flow-run-state"
    assert second["decay"]["actions"][0]["type"] == "send-notification"


def test_what_another_limit_changes_is_replaced_and_nothing_else(prefect: str) -> None:
    register()
    before = registered(prefect)
    register(limits=LIMITS.model_copy(update={"curate_hours": 2 * LIMITS.curate_hours}))
    after = registered(prefect)
    changed = {name for name in before if before[name]["id"] != after[name]["id"]}
    assert changed == {"end of hung runs of refresh"}
    assert (
        after["end of hung runs of refresh"]["trigger"]["within"]
        > before["end of hung runs of refresh"]["trigger"]["within"]
    )


def test_actions_that_an_older_release_lost_are_back(prefect: str) -> None:
    register()
    name = "end of hung runs of watch"
    found = registered(prefect)[name]
    lost = {each: found[each] for each in AutomationCore.model_fields if each in found} | {
        "actions": [{"type": "do-nothing"}]
    }
    httpx.put(f"{prefect}/automations/{found['id']}", json=lost).raise_for_status()
    assert registered(prefect)[name]["actions"] == lost["actions"]
    register()
    assert registered(prefect)[name]["actions"] == [{"type": "cancel-flow-run"}]


def test_without_a_channel_alerts_go_and_dead_runs_are_still_ended(prefect: str) -> None:
    register()
    register(alerts=None)
    assert set(registered(prefect)) == {
        "end of dead runs",
        *(f"end of hung runs of {flow}" for flow in longest_runs(LIMITS)),
    }

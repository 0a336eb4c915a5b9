"""Signs of life of runs, and their end, at a real server of Prefect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelling, Pending, Running
from waiting import eventually

from perpetune.flows.alerting.automations import HEARTBEAT
from perpetune.flows.dead_runs import RunsOfDeployments

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


@flow
def check() -> None:
    """A flow of a deployment."""


def test_runs_of_these_deployments_that_wait_or_send_heartbeats_are_found_and_ended() -> None:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(check)
        ours, theirs = (client.create_deployment(flow_id=flow_id, name=name) for name in ("signs", "colours"))
        pending = _run(client, ours, Pending(name="Submitting"))
        running = _run(client, ours, Running())
        cancelled = _run(client, ours, Running())
        client.set_flow_run_state(cancelled, Cancelling(), force=True)
        mute = _run(client, ours, Running())
        other = _run(client, theirs, Pending())
        runs = RunsOfDeployments(("signs",))
        assert set(runs.signs()) == {pending}, "nothing is known of one that has sent no heartbeat"
        ahead = datetime.now(UTC) + timedelta(hours=30)  # by a clock that is wrong
        for run, beat in ((running, ahead), (running, ahead + timedelta(minutes=1)), (cancelled, ahead)):
            _beat(client, run, beat)
        newest = {pending: "pending", running: ahead + timedelta(minutes=1), cancelled: ahead}
        eventually(lambda: runs.signs() == newest)
        for run in newest:
            runs.crash(run)
        assert not runs.signs()
        states = {run: client.read_flow_run(run).state for run in (*newest, mute, other)}
    types = {run: state.type for run, state in states.items() if state is not None}
    assert types == dict.fromkeys(newest, StateType.CRASHED) | {mute: StateType.RUNNING, other: StateType.PENDING}


def _beat(client: SyncPrefectClient, run: UUID, when: datetime) -> None:
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    event = {"event": HEARTBEAT, "occurred": when.isoformat(), "resource": resource, "id": str(uuid4())}
    client.request("POST", "/events", json=[event]).raise_for_status()


def _run(client: SyncPrefectClient, deployment: UUID, state: State[None]) -> UUID:
    run = client.create_flow_run_from_deployment(deployment).id
    client.set_flow_run_state(run, state, force=True)
    return run

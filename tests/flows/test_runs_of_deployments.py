"""Which runs have not begun, and their end, at a real server of Prefect."""

from __future__ import annotations

from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.states import Pending, Running

from perpetune.flows.unbegun import RunsOfDeployments

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


@flow
def check() -> None:
    """A flow of a deployment."""


def test_only_pending_runs_of_these_deployments_are_found_and_ended() -> None:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(check)
        ours, theirs = (client.create_deployment(flow_id=flow_id, name=name) for name in ("desk", "colours"))
        pending = _run(client, ours, Pending(name="Submitting"))
        running = _run(client, ours, Running())
        other = _run(client, theirs, Pending())
        runs = RunsOfDeployments(("desk",))
        assert set(runs.pending()) == {pending}
        runs.crash(pending)
        assert not runs.pending()
        states = {run: client.read_flow_run(run).state for run in (pending, running, other)}
    types = {run: state.type for run, state in states.items() if state is not None}
    assert types == {pending: StateType.CRASHED, running: StateType.RUNNING, other: StateType.PENDING}


def _run(client: SyncPrefectClient, deployment: UUID, state: State[None]) -> UUID:
    run = client.create_flow_run_from_deployment(deployment).id
    client.set_flow_run_state(run, state, force=True)
    return run

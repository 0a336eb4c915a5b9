"""Ends flow runs whose process has died or never begins.

Prefect would count them as running for ever, so that no other run of their deployment begins.

- Before it has begun a run sends no heartbeats. Its process may end before Prefect has heard of it, because the database
  cannot be written. Or Prefect's clock is set back by a day between the scheduling and the beginning: the process is told to
  wait until the scheduled time, and sleeps for a day, also if the clock is right again after seconds.
- Afterwards its heartbeats stop. An automation notices that while no worker lives (`perpetune.flows.alerting`). It forgets the
  heartbeats before the last change of it.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import psutil
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Crashed

from perpetune.flows.alerting.automations import HEARTBEAT, MISSED

# Five minutes: on a busy machine the import of Prefect takes one. Looks are counted and not seconds, because the clock may be
# what went wrong, and a machine may have slept.
LOOKS, STEP_SECONDS = 20, 15.0
_RUN = "PREFECT__FLOW_RUN_ID"
_SINCE, _UNTIL = datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)  # whatever the clocks say
Sign = tuple[UUID, Hashable]  # of a run
_NOT_ENDED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


class Runs(Protocol):
    def signs(self) -> Mapping[UUID, Hashable]:
        """The newest sign of life of each run that was handed to a process and has not ended."""

    def crash(self, run: UUID) -> None:
        """Report that a run has crashed."""


@dataclass(frozen=True)
class RunsOfDeployments:
    """Those of the deployments with these names, at Prefect."""

    names: tuple[str, ...]

    def signs(self) -> dict[UUID, Hashable]:
        """A run that has begun is in it if it sends heartbeats."""
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_NOT_ENDED))),
                deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=list(self.names))),
            )
            waiting = {each.id: "pending" for each in found if each.state_type == StateType.PENDING}
            begun = {each.id: _last_heartbeat(client, each.id) for each in found if each.id not in waiting}
        return {**waiting, **{run: heartbeat for run, heartbeat in begun.items() if heartbeat is not None}}

    def crash(self, run: UUID) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Crashed(message="its process has ended, or never began"), force=True)


def _last_heartbeat(client: SyncPrefectClient, run: UUID) -> datetime | None:
    newest = client.read_events(
        EventFilter(
            occurred=EventOccurredFilter(since=_SINCE, until=_UNTIL),
            event=EventNameFilter(name=[HEARTBEAT]),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
        ),
        limit=1,
    ).events
    return newest[0].occurred if newest else None


def looks_for(heartbeat_seconds: float) -> int:
    """How many looks show that a run whose process sends a heartbeat this often is dead."""
    return max(LOOKS, math.ceil(MISSED * heartbeat_seconds / STEP_SECONDS) + 1)


@contextmanager
def ending_dead_runs(runs: Runs, looks: int = LOOKS, step: float = STEP_SECONDS) -> Iterator[None]:
    """End runs that have shown no new sign of life at so many looks, while the block runs: their processes, or the runs.

    The worker reports a killed process as a crashed run, which alerts say. The next run then begins when it is due.
    """
    stopping = threading.Event()

    def watch() -> None:
        seen: Counter[Sign] = Counter()
        while not stopping.wait(step):
            try:
                seen = _look(runs, seen, looks)
            except Exception as fault:  # Prefect does not answer, in whichever of many ways: it is asked again
                print(f"which flow runs are alive is not known: {fault}", flush=True)

    thread = threading.Thread(target=watch, name="dead runs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _look(runs: Runs, before: Counter[Sign], looks: int) -> Counter[Sign]:
    """How often the newest sign of life of each run has been seen."""
    seen = Counter({sign: before[sign] + 1 for sign in runs.signs().items()})
    dead = [run for (run, _), times in seen.items() if times > looks]
    processes = _processes() if dead else {}
    for run in dead:
        print(f"flow run {run} shows no sign of life, and is ended", flush=True)
        if run in processes:
            processes[run].kill()
        else:
            runs.crash(run)
    return seen


def _processes() -> dict[UUID, psutil.Process]:
    """The processes of flow runs that this worker has started."""
    found = {}
    for each in psutil.Process().children():
        try:
            marked = each.environ().get(_RUN)
        except psutil.Error:  # it has ended meanwhile
            continue
        if marked is not None:
            found[UUID(marked)] = each
    return found

"""Ends flow runs that were handed to a process and never begin.

Until a run has begun it sends no heartbeats whose end could be noticed, and it counts as a run of its deployment, so that no
other begins. Two ways lead there. The process ends before Prefect has heard of it, because the database cannot be written.
Or Prefect's clock is set back by a day between the scheduling and the beginning: the process is told to wait until the
scheduled time, and sleeps for a day, also if the clock is right again after seconds.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import psutil
from prefect import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

# Five minutes: on a busy machine the import of Prefect takes one. Looks are counted and not seconds, because the clock may be
# what went wrong, and a machine may have slept.
LOOKS, STEP_SECONDS = 20, 15.0
_RUN = "PREFECT__FLOW_RUN_ID"


class Runs(Protocol):
    def pending(self) -> Collection[UUID]:
        """The runs that were handed to a process and have not begun."""

    def crash(self, run: UUID) -> None:
        """Report that a run has crashed."""


@dataclass(frozen=True)
class RunsOfDeployments:
    """Those of the deployments with these names, at Prefect."""

    names: tuple[str, ...]

    def pending(self) -> Collection[UUID]:
        state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=state),
                deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=list(self.names))),
            )
        return {each.id for each in found}

    def crash(self, run: UUID) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Crashed(message="its process ended before it began"), force=True)


@contextmanager
def ending_unbegun_runs(runs: Runs, looks: int = LOOKS, step: float = STEP_SECONDS) -> Iterator[None]:
    """End runs that have been pending at so many looks, while the block runs: their processes, or if there is none, the run.

    The worker reports a killed process as a crashed run, which alerts say. The next run then begins when it is due.
    """
    stopping = threading.Event()

    def watch() -> None:
        seen: Counter[UUID] = Counter()
        while not stopping.wait(step):
            try:
                seen = _look(runs, seen, looks)
            except Exception as fault:  # Prefect does not answer, in whichever of many ways: it is asked again
                print(f"which flow runs wait to begin is not known: {fault}", flush=True)

    thread = threading.Thread(target=watch, name="runs that do not begin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _look(runs: Runs, before: Counter[UUID], looks: int) -> Counter[UUID]:
    """How often each run that is pending now has been seen so."""
    seen = Counter({run: before[run] + 1 for run in runs.pending()})
    processes = _processes() if any(count > looks for count in seen.values()) else {}
    for run in (run for run, count in seen.items() if count > looks):
        print(f"flow run {run} has not begun, and is ended", flush=True)
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

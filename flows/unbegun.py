"""Ends flow runs whose process lives and that never begin.

Prefect's server tells a run to wait until its scheduled time by the server's clock. If that clock is set back by a day
between the scheduling and the beginning, the process sleeps for a day, also when the clock is right again after seconds.
Until then it counts as a run of its deployment, so no other begins, and it sends no heartbeats that could stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

import psutil
from prefect import get_client

BEGIN_SECONDS = 300.0  # from the start of the process; importing Prefect takes up to a minute on a busy machine
_STEP_SECONDS = 15.0
_RUN = "PREFECT__FLOW_RUN_ID"

Pending = Callable[[UUID], bool]


@contextmanager
def ending_unbegun_runs(
    pending: Pending | None = None, seconds: float = BEGIN_SECONDS, step: float = _STEP_SECONDS
) -> Iterator[None]:
    """Kill the processes of this worker whose runs are still `pending` after these seconds, while the block runs.

    The worker reports a killed run as crashed, which alerts say, and begins the next one when it is due.
    """
    stopping = threading.Event()

    def look() -> None:
        first_seen: Mapping[psutil.Process, float] = {}
        while not stopping.wait(step):
            # By the monotonic clock: that of the wall may be what went wrong.
            now = time.monotonic()
            first_seen = {each: first_seen.get(each, now) for each in psutil.Process().children()}
            for each, since in first_seen.items():
                if now - since > seconds:
                    _end_if(pending or _is_pending, each)

    thread = threading.Thread(target=look, name="runs that do not begin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _end_if(pending: Pending, process: psutil.Process) -> None:
    try:
        run = process.environ().get(_RUN)
        if run is None or not pending(UUID(run)):
            return
        print(f"flow run {run} has not begun: its process {process.pid} is ended", flush=True)
        process.kill()
    except psutil.Error:  # it has ended meanwhile
        return


def _is_pending(run: UUID) -> bool:
    """False if the server does not answer: it is asked again."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state
    except Exception as fault:  # of any layer below: this thread must outlive it
        print(f"the state of flow run {run} is not known: {fault}", flush=True)
        return False
    return state is not None and state.is_pending()

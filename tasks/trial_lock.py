"""One judge of a trial at a time, whichever flow it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

_LEASE_SECONDS = 60.0  # after which the place of a judge that was killed is free


@contextmanager
def only_judge(task: str, *, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold Prefect's one place for a judge of this task's trial.

    Raises TimeoutError where another holds it still after `wait_seconds` (None: wait as long as it takes).
    """
    name = f"judge of the trial of {task}"
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):  # another made it just now
            client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(name, timeout_seconds=wait_seconds, lease_duration=_LEASE_SECONDS, strict=True):
        yield

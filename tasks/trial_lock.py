"""A lock for the checks of a trial, because both the watch and the trial flow make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

_LEASE_SECONDS = 60.0  # a killed process keeps the lock no longer


@contextmanager
def trial_lock(task: str, *, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock (a Prefect global concurrency limit of 1) of this task's trial.

    Raises TimeoutError if it is not free within `wait_seconds` (None: wait without limit).
    """
    name = f"trial of {task}"
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):  # another process created it
            client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(name, timeout_seconds=wait_seconds, lease_duration=_LEASE_SECONDS, strict=True):
        yield

"""Locks that all processes of a task share, kept by Prefect as global concurrency limits of 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

_LEASE_SECONDS = 60.0  # a killed process keeps a lock no longer


@contextmanager
def locked(name: str, *, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of this name. Raises TimeoutError if it is not free within `wait_seconds` (None: no limit)."""
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):  # another process created it
            client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(name, timeout_seconds=wait_seconds, lease_duration=_LEASE_SECONDS, strict=True):
        yield


@contextmanager
def trial_lock(task: str, *, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of this task's trial.

    Raises TimeoutError if it is not free within `wait_seconds` (None: wait without limit).
    """
    with locked(f"trial of {task}", wait_seconds=wait_seconds):
        yield


@contextmanager
def decision_lock(task: str) -> Iterator[None]:
    """Hold the lock of whoever settles an approval or carries out a decision that was left.

    A refresh, a check and the flow of an approval may do so at the same moment. The one that waited reads again what
    is left, so that each is done once.
    """
    with locked(f"decisions of {task}"):
        yield

"""A lock for the checks of a trial, because both the watch and the trial flow make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perpetune.tasks.locks import locked


@contextmanager
def trial_lock(task: str, *, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of this task's trial.

    Raises TimeoutError if it is not free within `wait_seconds` (None: wait without limit).
    """
    with locked(f"trial of {task}", wait_seconds=wait_seconds):
        yield

"""Kill the process at a write to MLflow: the write and all that follow it, in `finally` too, do not happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

WRITES = (
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
    "delete_model_version_tag",
    "update_model_version",
    "create_run",
    "update_run",
    "set_terminated",
    "log_batch",
    "log_text",
    "log_artifact",
    "delete_tag",
)


class Killed(BaseException):
    """As by `kill -9`: no `except Exception` catches it."""


@contextmanager
def killed_at(number: int) -> Iterator[list[str]]:
    """Kill at the write of this number, counted from 0; yields the names of the writes that were made before it.

    The block ends as a killed process does: silently.
    """
    made: list[str] = []
    dead = False

    def wrapped(name: str) -> Callable[..., Any]:
        original = getattr(MlflowClient, name)

        def call(*values: Any, **named: Any) -> Any:
            nonlocal dead
            dead = dead or len(made) == number
            if dead:
                raise Killed(name)
            made.append(name)
            return original(*values, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            patch.setattr(MlflowClient, name, wrapped(name))
        try:
            yield made
        except Killed:
            pass

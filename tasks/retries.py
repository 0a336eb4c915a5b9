"""The retry condition of tasks."""

from __future__ import annotations

from typing import Any

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun
from prefect.task_engine import TaskRunTimeoutError

from perpetune.errors import PerpetuneError


async def unless_user_error(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Retry unless the error is a PerpetuneError, which only the user can fix, or the task was ended at its time limit."""
    fault = await state.aresult(raise_on_failure=False)
    return not isinstance(fault, PerpetuneError | TaskRunTimeoutError)

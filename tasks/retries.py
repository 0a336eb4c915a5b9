"""Which failures are worth another try."""

from __future__ import annotations

from typing import Any

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun

from perpetune.errors import PerpetuneError


async def unless_it_is_for_people(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Trying again does not mend what a person must put right."""
    fault = await state.aresult(raise_on_failure=False)
    return not isinstance(fault, PerpetuneError)

"""Tasks with a time limit from params.yaml: what hangs is ended, and the run that it belongs to fails and says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast

from prefect import task
from prefect.task_engine import TaskRunTimeoutError

from perpetune.errors import PerpetuneError
from perpetune.params import LimitsParams
from perpetune.workspace import Workspace

Step = Literal["curate", "train", "evaluate", "check", "trial", "other"]
SETTINGS: dict[Step, tuple[str, float]] = {
    "curate": ("curate_hours", 3600),
    "train": ("train_hours", 3600),
    "evaluate": ("evaluate_hours", 3600),
    "check": ("check_hours", 3600),
    "trial": ("trial_days", 24 * 3600),
    "other": ("other_minutes", 60),
}
P = ParamSpec("P")
R = TypeVar("R")
OfWorkspace = Callable[Concatenate[Workspace, P], R]


def limited_task(step: Step, **options: Any) -> Callable[[OfWorkspace[P, R]], OfWorkspace[P, R]]:
    """A Prefect task whose first argument is the workspace, which has the time limit of the step.

    Prefect raises in the code of a task that is too late, so also in one that waits for a socket, a process or a lock. A
    task that hangs in native code is ended by an automation (perpetune.flows.alerting). The task raises PerpetuneError then;
    it is not tried again, because a hung training would hang three times.
    """

    def decorate(function: OfWorkspace[P, R]) -> OfWorkspace[P, R]:
        made = cast(Any, task)(**options)(function)

        @wraps(function)
        def call(workspace: Workspace, *args: P.args, **more: P.kwargs) -> R:
            seconds = seconds_of(step, workspace.params.limits)
            try:
                return cast(R, made.with_options(timeout_seconds=seconds)(workspace, *args, **more))
            except TaskRunTimeoutError as fault:
                raise too_late(made.name, step, workspace.params.limits) from fault

        return cast(OfWorkspace[P, R], call)

    return decorate


def seconds_of(step: Step, limits: LimitsParams) -> float:
    """The time limit of a step in seconds."""
    setting, unit = SETTINGS[step]
    return float(getattr(limits, setting)) * unit


def too_late(name: str, step: Step, limits: LimitsParams) -> PerpetuneError:
    setting, _ = SETTINGS[step]
    value, unit = getattr(limits, setting), setting.rpartition("_")[2]
    return PerpetuneError(
        f"the task {name!r} was ended after {value:g} {unit}, its time limit",
        where=f"params.yaml: limits.{setting}",
        do="see its log for what it waited for; raise the limit if it needs so long",
    )

"""Prefect task: open and close the MLflow run of a flow run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.loop import run_context
from perpetune.tasks.time_limits import limited_task
from perpetune.tracking.runs import Run, close_run, mark_killed, tag_error
from perpetune.workspace import Workspace


@limited_task(
    "other",
    name="open run",
    task_run_name="open the MLflow run",
    retries=2,
    retry_delay_seconds=5,
    cache_policy=NO_CACHE,
)
def open_run(
    workspace: Workspace, kind: run_context.Kind, trigger: str, reason: str, data_version: str | None = None
) -> Run:
    run = run_context.open_loop_run(workspace, kind, trigger, reason, str(flow_run.id), data_version)
    create_link_artifact(run.url, "MLflow run", key="mlflow-run", description=f"{kind}: {reason}")
    return run


@contextmanager
def tracked(
    workspace: Workspace,
    kind: run_context.Kind,
    trigger: str,
    reason: str,
    data_version: str | None = None,
    *,
    ends: bool = True,
) -> Iterator[Run]:
    """An MLflow run that succeeds or fails with the flow; if it does not end here, the next flow run resumes it."""
    run = open_run(workspace, kind, trigger, reason, data_version)
    with closing(run, ends=ends):
        yield run


@contextmanager
def closing(run: Run, *, ends: bool = True) -> Iterator[None]:
    """Close the run as succeeded, or as failed with the error of the block; as interrupted if it does not end here."""
    succeeded = False
    try:
        yield
        succeeded = True
    except BaseException as fault:
        tag_error(run, fault)
        raise
    finally:
        if succeeded and not ends:
            mark_killed(run)
        else:
            close_run(run, succeeded=succeeded)

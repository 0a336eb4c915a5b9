"""Prefect tasks: curate the data, and compare it with that of the last refresh."""

from __future__ import annotations

from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.loop import curate as curation
from perpetune.loop.curate import CuratedData
from perpetune.loop.planning.unchanged import why_unchanged
from perpetune.policy.unchanged import Trigger
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_details
from perpetune.tracking.runs import Run
from perpetune.workspace import Workspace


@limited_task(
    "curate",
    name="curate",
    task_run_name="curate the data",
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def curate(workspace: Workspace, goes_on: str | None = None) -> CuratedData:
    curated = curation.curate(workspace, goes_on or str(flow_run.id))
    print(f"data {curated.version[:8]}: " + ", ".join(f"{count} {name}" for name, count in curated.rows.items()))
    if advice := curation.schema_advice(workspace):
        print("all outputs are JSON objects: task.output_schema would keep them valid (`--verbose` shows one)")
        log_details(advice)
    return curated


@limited_task(
    "other",
    name="nothing new",
    task_run_name="compare with the last refresh",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def nothing_new(workspace: Workspace, curated: CuratedData, trigger: Trigger) -> str | None:
    why = why_unchanged(workspace, curated, trigger)
    if why is not None:
        print(f"unchanged: {why}")
        print("next: `perpetune refresh --again` runs it anyway")
    return why


@limited_task(
    "other",
    name="log data",
    task_run_name="log the data version to MLflow",
    retries=2,
    retry_delay_seconds=5,
    cache_policy=NO_CACHE,
)
def log_data(workspace: Workspace, run: Run, curated: CuratedData) -> None:
    curation.log_data(workspace, run, curated)

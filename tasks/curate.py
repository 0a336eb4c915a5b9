"""Curate the data."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from perpetune.loop.curate import Curated
from perpetune.loop.curate import curate as curate_data
from perpetune.tracking import Run
from perpetune.workspace import Workspace
from tasks.retrying import unless_it_is_for_people


@task(
    name="curate",
    task_run_name="curate the data",
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=unless_it_is_for_people,
    timeout_seconds=3600,
    cache_policy=NO_CACHE,
)
def curate(workspace: Workspace, run: Run) -> Curated:
    curated = curate_data(workspace, run)
    print(f"data {curated.version[:8]}: " + ", ".join(f"{count} {name}" for name, count in curated.rows.items()))
    return curated

"""Release a promoted version."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from perpetune.loop.rollout.deploy import DeployResult
from perpetune.loop.rollout.deploy import release as release_version
from perpetune.runtime.events import DEPLOYED
from perpetune.tasks.events import emit
from perpetune.workspace import Workspace


@task(name="release", task_run_name="release version {version}", cache_policy=NO_CACHE)
def release(workspace: Workspace, version: str) -> DeployResult:
    released = release_version(workspace, version)
    if released.served:
        print(f"version {version} serves after {released.seconds:.1f} s")
        emit(DEPLOYED, workspace.params.task.name, {"version": version, "previous": released.previous})
    else:
        print(f"version {version} is champion; no gateway runs: the next one to start serves it")
    return released

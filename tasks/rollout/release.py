"""Prefect tasks: release a promoted version, and carry out what a killed refresh had decided."""

from __future__ import annotations

from prefect.cache_policies import NO_CACHE

from perpetune.loop.planning.unfinished import (
    UnfinishedRefresh,
    repeat_tags,
    unfinished_refresh,
    withdraw,
    withdrawn_if_champion_changed,
)
from perpetune.loop.rollout.deploy import DeployResult
from perpetune.loop.rollout.deploy import release as release_version
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import DEPLOYED
from perpetune.tasks.events import emit
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_verdict
from perpetune.workspace import Workspace


@limited_task(
    "other", name="release", task_run_name="release version {decision.ids.model_version}", cache_policy=NO_CACHE
)
def release(workspace: Workspace, decision: Decision) -> DeployResult:
    version = str(decision.ids.model_version)
    with withdrawn_if_champion_changed(decision):
        released = release_version(workspace, version, decision.ids.champion_version)
    if released.served:
        print(f"version {version} serves after {released.seconds:.1f} s")
        emit(DEPLOYED, workspace.params.task.name, {"version": version, "previous": released.previous})
    else:
        print(f"version {version} is champion; no gateway runs: the next one to start serves it")
    return released


@limited_task(
    "other", name="find unfinished", task_run_name="look for a decision that is not carried out", cache_policy=NO_CACHE
)
def find_unfinished(workspace: Workspace) -> UnfinishedRefresh | None:
    """A killed refresh whose decision still holds, with its writes repeated; a decision that does not is withdrawn."""
    found = unfinished_refresh(workspace)
    if found is None:
        return None
    if found.changed is not None:
        print(f"a refresh was killed after its decision, which does not hold any more: {found.changed}")
        withdraw(found.decision)
        return None
    print("a refresh was killed after its decision, which is carried out now, without training:")
    repeat_tags(found)
    log_verdict(found.decision)
    return found

"""Go back to the previous champion."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from perpetune.decision import Decision
from perpetune.events import ROLLED_BACK
from perpetune.gateway_client import WentBack
from perpetune.loop.rollback import file_away, go_back
from perpetune.workspace import Workspace
from tasks.events import emit


@task(name="roll back", task_run_name="go back to the previous champion", cache_policy=NO_CACHE)
def roll_back(workspace: Workspace, decision: Decision) -> WentBack:
    went = go_back(workspace, decision.reason)
    file_away(decision, went)
    print(f"version {went.restored} serves again instead of version {went.rolled_back}")
    payload = {"version": went.rolled_back, "restored": went.restored, "reason": decision.reason}
    emit(ROLLED_BACK, decision.task, payload)
    return went

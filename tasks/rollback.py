"""Go back to the previous champion."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from perpetune.loop.rollout.rollback import file_away, go_back
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import ROLLED_BACK
from perpetune.runtime.gateway_client import RollbackReply
from perpetune.tasks.events import emit
from perpetune.workspace import Workspace


@task(name="roll back", task_run_name="go back to the previous champion", cache_policy=NO_CACHE)
def roll_back(workspace: Workspace, decision: Decision) -> RollbackReply:
    went = go_back(workspace, decision.reason)
    file_away(decision, went)
    print(f"version {went.restored} serves again, in place of version {went.rolled_back}")
    payload = {"version": went.rolled_back, "restored": went.restored, "reason": decision.reason}
    emit(ROLLED_BACK, decision.task, payload)
    return went

"""Prefect task: roll back to the previous champion."""

from __future__ import annotations

from prefect.cache_policies import NO_CACHE

from perpetune.loop.rollout.rollback import log_rollback
from perpetune.loop.rollout.rollback import roll_back as roll_back_champion
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import ROLLED_BACK
from perpetune.runtime.gateway_client import RollbackReply
from perpetune.tasks.events import emit
from perpetune.tasks.time_limits import limited_task
from perpetune.workspace import Workspace


@limited_task("other", name="roll back", task_run_name="roll back to the previous champion", cache_policy=NO_CACHE)
def roll_back(workspace: Workspace, decision: Decision) -> RollbackReply:
    done = roll_back_champion(workspace, decision.reason, decision.ids.model_version)
    log_rollback(workspace, decision, done)
    print(f"rolled back from version {done.rolled_back} to version {done.restored}")
    payload = {"version": done.rolled_back, "restored": done.restored, "reason": decision.reason}
    emit(ROLLED_BACK, decision.task, payload)
    return done

"""Prefect tasks: ask for the approval of a promotion, and log the response."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from perpetune.loop import approve as approvals
from perpetune.loop.approve import ApprovalResponse
from perpetune.loop.rollout.trial import needs_trial
from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import PROMOTED, REJECTED
from perpetune.tasks.events import emit
from perpetune.tasks.verdict import log_verdict
from perpetune.workspace import Workspace


@task(name="await approval", task_run_name="tag version {version} as waiting", cache_policy=NO_CACHE)
def await_approval(workspace: Workspace, version: str) -> None:
    approvals.await_approval(workspace, version)
    hours = workspace.params.promote.approval_hours
    print(f"version {version} waits for approval, {hours:g} hours at most: resume its run of `approval` in Prefect")


@task(name="record response", task_run_name="log the response to the approval", cache_policy=NO_CACHE)
def record_response(workspace: Workspace, promotion: Decision, response: ApprovalResponse | None) -> Decision:
    decision = approvals.record_response(workspace, promotion, response)
    create_markdown_artifact(as_markdown(decision), key="verdict", description=decision.reason)
    log_verdict(decision)
    if decision.outcome != "promote" or not needs_trial(workspace):
        event = PROMOTED if decision.outcome == "promote" else REJECTED
        payload = {"version": decision.ids.model_version, "outcome": decision.outcome, "reason": decision.reason}
        emit(event, decision.task, payload)
    return decision

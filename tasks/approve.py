"""Ask for a person's word on a promotion, and write it down."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.decision import Decision, as_markdown
from perpetune.events import PROMOTED, REJECTED, WAITING
from perpetune.loop import approve as approvals
from perpetune.loop.approve import Said
from perpetune.loop.trial import goes_on_trial
from perpetune.workspace import Workspace
from tasks.events import emit


@task(name="await word", task_run_name="ask a person about the version", cache_policy=NO_CACHE)
def await_word(workspace: Workspace, promotion: Decision, flow_run_id: str) -> None:
    version, hours = promotion.ids.model_version, workspace.params.promote.approval_hours
    assert version is not None
    approvals.await_word(workspace, version)
    print(f"version {version} waits for a person, {hours:g} hours at most: resume this run at {flow_run.ui_url}")
    payload = {
        "version": version,
        "reason": promotion.reason,
        "hours": hours,
        "flow_run_id": flow_run_id,
        "page": flow_run.ui_url,
    }
    emit(WAITING, promotion.task, payload)


@task(name="hear", task_run_name="write down what a person said", cache_policy=NO_CACHE)
def hear(workspace: Workspace, promotion: Decision, said: Said | None) -> Decision:
    decision = approvals.hear(workspace, promotion, said)
    create_markdown_artifact(as_markdown(decision), key="verdict", description=decision.reason)
    print(f"{decision.outcome}: {decision.reason}")
    if decision.outcome != "promote" or not goes_on_trial(workspace):
        event = PROMOTED if decision.outcome == "promote" else REJECTED
        payload = {"version": decision.ids.model_version, "outcome": decision.outcome, "reason": decision.reason}
        emit(event, decision.task, payload)
    return decision

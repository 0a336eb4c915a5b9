"""The approval flow: pause until a reviewer approves or refuses a version."""

from __future__ import annotations

from prefect import flow, pause_flow_run
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from perpetune.loop.approve import ApprovalResponse
from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import WAITING
from perpetune.tasks.approve import await_approval, record_response
from perpetune.tasks.events import emit
from perpetune.workspace import Workspace

POLL_SECONDS = 5


class Approval(RunInput):
    """The form that Prefect shows when the run is resumed."""

    approve: bool = Field(title="Approve the version?")
    who: str = Field(min_length=1, title="Your name")
    comment: str = Field(min_length=1, title="Comment")


def approve(workspace: Workspace, promotion: Decision) -> Decision:
    """Wait for the approval of a promotion; the outcome of the decision returned is "promote" or "reject"."""
    version, hours = promotion.ids.model_version, workspace.params.promote.approval_hours
    assert version is not None
    await_approval(workspace, version)
    try:
        response = approval(promotion.task, version, promotion.reason, hours, as_markdown(promotion))
    except FlowPauseTimeout:
        response = None
    return record_response(workspace, promotion, response)


@flow(name="approval", flow_run_name="approve version {version}?", log_prints=True)
def approval(task: str, version: str, reason: str, hours: float, page: str) -> ApprovalResponse:
    """Pause until a reviewer resumes this run with the form; `page` is the decision record as Markdown.

    This is a separate flow run because a paused run releases its concurrency slot, and Prefect 3.8 ends a deployment's
    run that has lost its slot. The refresh is not paused and keeps its slot. The parameters are plain values because
    Prefect stores and shows them.
    Raises FlowPauseTimeout if it is not resumed within `hours`.
    """
    waiting = {"version": version, "reason": reason, "hours": hours}
    emit(WAITING, task, waiting | {"flow_run_id": str(flow_run.id), "page": flow_run.ui_url})
    print(f"resume this run within {hours:g} hours: {flow_run.ui_url}")
    form = Approval.with_initial_data(description=page)
    answer = pause_flow_run(wait_for_input=form, timeout=max(1, round(3600 * hours)), poll_interval=POLL_SECONDS)
    return ApprovalResponse(answer.approve, answer.who, answer.comment)

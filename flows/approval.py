"""A person is asked whether a version may take over."""

from __future__ import annotations

from prefect import flow, pause_flow_run
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from perpetune.loop.approve import ApprovalResponse
from perpetune.policy.decision.record import Decision, as_markdown
from perpetune.runtime.events import WAITING
from perpetune.tasks.approve import await_approval, record_response
from perpetune.tasks.events import emit
from perpetune.workspace import Workspace

SECONDS_BETWEEN_CHECKS = 5


class Approval(RunInput):
    """The form that Prefect shows to whoever resumes the run."""

    approve: bool = Field(title="May it take over?")
    who: str = Field(min_length=1, title="Your name")
    comment: str = Field(min_length=1, title="Why")


def approve(workspace: Workspace, promotion: Decision) -> Decision:
    """Wait for a person's word on a promotion; the decision is then "promote" or "reject"."""
    version, hours = promotion.ids.model_version, workspace.params.promote.approval_hours
    assert version is not None
    await_approval(workspace, version)
    try:
        said = approval(promotion.task, version, promotion.reason, hours, as_markdown(promotion))
    except FlowPauseTimeout:
        said = None
    return record_response(workspace, promotion, said)


@flow(name="approval", flow_run_name="may version {version} take over?", log_prints=True)
def approval(task: str, version: str, reason: str, hours: float, page: str) -> ApprovalResponse:
    """Pause until somebody who has read the `page` resumes this run with a word on the version.

    It is a run of its own: a paused run gives its concurrency slot back, and Prefect 3.8 ends a deployment's run that
    has lost its slot a few minutes later. The refresh, which is not paused, keeps its own meanwhile. Its parameters
    are plain, since Prefect stores and shows them.
    Raises FlowPauseTimeout where nobody does within `hours`.
    """
    waiting = {"version": version, "reason": reason, "hours": hours}
    emit(WAITING, task, waiting | {"flow_run_id": str(flow_run.id), "page": flow_run.ui_url})
    print(f"resume this run within {hours:g} hours: {flow_run.ui_url}")
    form = Approval.with_initial_data(description=page)
    answer = pause_flow_run(
        wait_for_input=form, timeout=max(1, round(3600 * hours)), poll_interval=SECONDS_BETWEEN_CHECKS
    )
    return ApprovalResponse(answer.approve, answer.who, answer.comment)

"""Manual approval of a promotion, between steps 4 and 5, if `promote.approval` is "required"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from perpetune.loop.run_context import log_later_decision
from perpetune.policy.approval import ApprovalEvidence, approved
from perpetune.policy.decision.record import Decision, record
from perpetune.tracking import registry
from perpetune.workspace import Workspace

WAITING, APPROVED, REFUSED, TIMED_OUT = "waiting", "approved", "refused", "timed out"  # values of the tag `approval`


@dataclass(frozen=True)
class ApprovalResponse:
    """A reviewer's answer; `who` is the name that they gave."""

    approve: bool
    who: str
    comment: str


def needs_approval(workspace: Workspace) -> bool:
    return workspace.params.promote.approval == "required"


def await_approval(workspace: Workspace, version: str) -> None:
    """Tag the version as waiting for approval."""
    registry.tag_version(workspace.params.task.name, version, {"approval": WAITING})


def record_response(workspace: Workspace, promotion: Decision, response: ApprovalResponse | None) -> Decision:
    """Log the decision on a promotion after its approval step; `response` is None if it timed out.

    The decision record is logged to the run that made the version; the version's tags name the reviewer, time and
    comment.
    """
    task, version = promotion.task, promotion.ids.model_version
    assert version is not None
    champion = registry.find(task, "champion")
    evidence = ApprovalEvidence(
        version=version,
        compared_with=promotion.ids.champion_version,
        champion=champion.version if champion else None,
        hours=workspace.params.promote.approval_hours,
        approve=response.approve if response else None,
        who=response.who if response else "",
        comment=response.comment if response else "",
    )
    decision = record(approved(evidence), evidence, task=task, time=datetime.now(UTC), ids=promotion.ids)
    log_later_decision(decision, registry.get(task, version))
    registry.tag_version(task, version, _tags(decision, response))
    if decision.outcome != "promote" and champion is not None and champion.version == evidence.compared_with:
        # As after any rejection: this run evaluated the champion on the newest reference rows.
        registry.tag_version(task, champion.version, {"answers": f"{promotion.ids.run_id}/champion"})
    return decision


def _tags(decision: Decision, response: ApprovalResponse | None) -> dict[str, str]:
    tags = {"approval.time": decision.time.isoformat()}
    if response is None:
        return tags | {"approval": TIMED_OUT}
    state = APPROVED if response.approve else REFUSED
    return tags | {"approval": state, "approval.by": response.who, "approval.comment": response.comment}

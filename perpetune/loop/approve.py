"""Between steps 4 and 5, where it is asked for: a person has the last word on a promotion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from perpetune.loop.run_context import log_later_decision
from perpetune.policy.approval import ApprovalEvidence, approved
from perpetune.policy.decision.record import Decision, record
from perpetune.tracking import registry
from perpetune.workspace import Workspace

WAITING, APPROVED, REFUSED, NOBODY = "waiting", "approved", "refused", "nobody came"


@dataclass(frozen=True)
class ApprovalResponse:
    """What a person said of a version, and who it was, by their own word."""

    approve: bool
    who: str
    comment: str


def needs_approval(workspace: Workspace) -> bool:
    return workspace.params.promote.approval == "required"


def await_approval(workspace: Workspace, version: str) -> None:
    """Say on the version's page that a person is wanted."""
    registry.tag_version(workspace.params.task.name, version, {"approval": WAITING})


def record_response(workspace: Workspace, promotion: Decision, said: ApprovalResponse | None) -> Decision:
    """Write down what became of a promotion; `said` is None where nobody came in time.

    The record lies with the run that made the version, whose tags say who spoke, when, and what.
    """
    task, version = promotion.task, promotion.ids.model_version
    assert version is not None
    champion = registry.find(task, "champion")
    evidence = ApprovalEvidence(
        version=version,
        compared_with=promotion.ids.champion_version,
        champion=champion.version if champion else None,
        hours=workspace.params.promote.approval_hours,
        approve=said.approve if said else None,
        who=said.who if said else "",
        comment=said.comment if said else "",
    )
    decision = record(approved(evidence), evidence, task=task, time=datetime.now(UTC), ids=promotion.ids)
    log_later_decision(decision, registry.get(task, version))
    registry.tag_version(task, version, _tags(decision, said))
    if decision.outcome != "promote" and champion is not None and champion.version == evidence.compared_with:
        # As after any other rejection: this run asked the champion about the newest reference rows.
        registry.tag_version(task, champion.version, {"answers": f"{promotion.ids.run_id}/champion"})
    return decision


def _tags(decision: Decision, said: ApprovalResponse | None) -> dict[str, str]:
    tags = {"approval.time": decision.time.isoformat()}
    if said is None:
        return tags | {"approval": NOBODY}
    word = APPROVED if said.approve else REFUSED
    return tags | {"approval": word, "approval.by": said.who, "approval.comment": said.comment}

"""Manual approval of a promotion, between steps 4 and 5, if `promote.approval` is "required".

No process waits: the version's tags say that it waits, until when, and which suspended run of Prefect takes the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from perpetune.audit.answers import answer_event, was_authenticated
from perpetune.errors import NoDecision, PerpetuneError
from perpetune.loop.run_context import LATER, RECORD, log_later_decision, use_mlflow
from perpetune.policy.approval import ApprovalEvidence, approved
from perpetune.policy.decision.record import Decision, record
from perpetune.records import parse_time
from perpetune.runtime.prefect_api import FlowRun, Prefect
from perpetune.tracking import registry
from perpetune.tracking.runs import artifact, artifact_names
from perpetune.workspace import Workspace

# Values of the tag `approval`. An approved version is "overtaken" if another became champion before its release, and
# "without record" if the decision record that promotes it was deleted. "cancelled": a person cancelled the run that takes the
# answer, or that was carrying it out.
WAITING, APPROVED, REFUSED, TIMED_OUT, OVERTAKEN = "waiting", "approved", "refused", "timed out", "overtaken"
WITHOUT_RECORD, CANCELLED = "without record", "cancelled"
ENDED = (REFUSED, TIMED_OUT, OVERTAKEN, WITHOUT_RECORD, CANCELLED)
STATE, UNTIL, FLOW_RUN, TIME = "approval", "approval.until", "approval.flow_run", "approval.time"
CLAIMED = " (claimed)"  # after the name of a reviewer whom nobody authenticated
RELEASING = timedelta(minutes=10)  # an approved version is not released by another process meanwhile


@dataclass(frozen=True)
class ApprovalResponse:
    """A reviewer's answer; `who` is the name that they gave, or the identity under which the gateway passed it on."""

    approve: bool
    who: str
    comment: str


def needs_approval(workspace: Workspace) -> bool:
    return workspace.params.promote.approval == "required"


@dataclass(frozen=True)
class PendingApproval:
    """A version that waits for a person (`until` then), or that was approved and not put into service.

    `flow_run` is the suspended run of Prefect that takes the answer.
    """

    version: str
    approved: bool
    until: datetime | None
    flow_run: str | None


def await_approval(workspace: Workspace, version: str, flow_run_id: str, now: datetime) -> datetime:
    """Tag the version as waiting for the answer that this run takes; returns until when."""
    until = now + timedelta(hours=workspace.params.promote.approval_hours)
    tags = {UNTIL: until.isoformat(), FLOW_RUN: flow_run_id, STATE: WAITING}
    registry.tag_version(workspace.params.task.name, version, tags)
    return until


def pending_approvals(workspace: Workspace) -> list[PendingApproval]:
    """The newest first."""
    use_mlflow(workspace)
    found = registry.versions_tagged(workspace.params.task.name, STATE, (WAITING, APPROVED))
    return [_pending(each.version, each.tags) for each in found if _is_pending(each.tags)]


def _is_pending(tags: Mapping[str, str]) -> bool:
    # One that was released meanwhile, by `perpetune promote`, waits for nothing.
    return tags.get(STATE) in (WAITING, APPROVED) and registry.STATE not in tags


def _pending(version: str, tags: Mapping[str, str]) -> PendingApproval:
    is_approved = tags[STATE] == APPROVED
    until = tags.get(TIME if is_approved else UNTIL)
    return PendingApproval(version, is_approved, parse_time(until) if until else None, tags.get(FLOW_RUN))


def is_due(pending: PendingApproval, now: datetime) -> bool:
    """Whether nobody answered in time, or the process that was to release an approved version was killed.

    Without a time it was asked by an earlier perpetune, in a process that waited, which is gone.
    """
    if pending.until is None:
        return True
    return now > (pending.until + RELEASING if pending.approved else pending.until)


def waiting_version(workspace: Workspace) -> PendingApproval | None:
    """The newest version that waits for a person; None if none does."""
    return next((each for each in pending_approvals(workspace) if not each.approved), None)


def require_waiting(workspace: Workspace, version: str) -> PendingApproval:
    """The approval that the version waits for. Raises PerpetuneError if it waits for none."""
    use_mlflow(workspace)
    tags = registry.get(workspace.params.task.name, version).tags
    if tags.get(STATE) == WAITING:
        return _pending(version, tags)
    by = f" by {tags['approval.by']}" if "approval.by" in tags else ""
    was = f"its approval is {tags[STATE]}{by}" if STATE in tags else "nobody was asked about it"
    raise PerpetuneError(
        f"version {version} does not wait for approval: {was}",
        do=f"`perpetune status` lists what waits; `perpetune promote {version} --reason '...'` promotes it by hand",
    )


def answer_approval(workspace: Workspace, version: str, response: ApprovalResponse) -> FlowRun:
    """Pass an answer on to the suspended run that takes it. Raises PerpetuneError if the version waits for none."""
    url = workspace.settings.prefect_api_url
    if url is None:
        raise PerpetuneError("no Prefect server is configured", where="PREFECT_API_URL", do="set it, or `perpetune up`")
    waiting = require_waiting(workspace, version)
    answer = {"approve": response.approve, "who": response.who, "comment": response.comment}
    return Prefect(url).resume(str(waiting.flow_run), answer)


def overtake(workspace: Workspace, version: str) -> None:
    """Tag an approved version that another champion has overtaken, so that it is not released any more."""
    registry.tag_version(workspace.params.task.name, version, {STATE: OVERTAKEN})


def give_up(workspace: Workspace, version: str) -> None:
    """Tag a version whose decision record was deleted, so that nobody is asked for its approval any more."""
    tags = {TIME: datetime.now(UTC).isoformat(), STATE: WITHOUT_RECORD}
    registry.tag_version(workspace.params.task.name, version, tags)


def promotion_of(workspace: Workspace, version: str) -> Decision:
    """The decision record that promotes the version. Raises NoDecision if there is none."""
    run_id = registry.get(workspace.params.task.name, version).run_id
    for found in _decisions(run_id):
        if (found.kind, found.outcome, found.ids.model_version) == ("promotion", "promote", version):
            return found
    raise NoDecision(f"no decision promotes version {version}", do="`perpetune explain VERSION` shows its decisions")


def _decisions(run_id: str) -> Iterator[Decision]:
    """The decision records of a run and of its versions, the newest first."""
    with TemporaryDirectory() as folder:
        for name in [*reversed(artifact_names(run_id, LATER)), RECORD]:
            if path := artifact(run_id, name, Path(folder)):
                yield Decision.from_json(path.read_text(encoding="utf-8"))


def record_response(
    workspace: Workspace, promotion: Decision, response: ApprovalResponse | None, *, cancelled: bool = False
) -> Decision:
    """Log the decision on a promotion after its approval step; `response` is None if nobody answered.

    The decision record is logged to the run that made the version; the version's tags name the reviewer, time and
    comment. If a process was killed between the record and the tags, its record stands and the rest is repeated.
    `cancelled`: a person cancelled the run that takes the answer or carries it out, which counts after an approval too.
    """
    task, version = promotion.task, promotion.ids.model_version
    assert version is not None
    decision = _recorded(promotion)
    if decision is None or (cancelled and decision.outcome == "promote"):
        decision = _decision_on(workspace, promotion, response, cancelled=cancelled)
    log_later_decision(workspace, decision, registry.get(task, version))
    registry.tag_version(task, version, _tags(decision))
    champion = registry.find(task, "champion")
    if decision.outcome != "promote" and champion is not None and champion.version == promotion.ids.champion_version:
        # As after any rejection: this run evaluated the champion on the newest reference rows.
        registry.tag_version(task, champion.version, {"answers": f"{promotion.ids.run_id}/champion"})
    return decision


def _recorded(promotion: Decision) -> Decision | None:
    """The newest response that was recorded since this promotion was decided."""
    version = promotion.ids.model_version
    return next(
        (
            found
            for found in _decisions(str(promotion.ids.run_id))
            if (found.kind, found.ids.model_version) == ("approval", version) and found.time > promotion.time
        ),
        None,
    )


def _decision_on(
    workspace: Workspace, promotion: Decision, response: ApprovalResponse | None, *, cancelled: bool
) -> Decision:
    task, version = promotion.task, str(promotion.ids.model_version)
    champion = registry.find(task, "champion")
    evidence = ApprovalEvidence(
        version=version,
        compared_with=promotion.ids.champion_version,
        champion=champion.version if champion else None,
        hours=workspace.params.promote.approval_hours,
        approve=response.approve if response else None,
        who=_known_as(workspace, promotion, response) if response else "",
        comment=response.comment if response else "",
        cancelled=cancelled,
    )
    return record(approved(evidence), evidence, task=task, time=datetime.now(UTC), ids=promotion.ids)


def _known_as(workspace: Workspace, promotion: Decision, response: ApprovalResponse) -> str:
    """Who answered: with " (claimed)" unless the gateway had authenticated them, since a form takes any name."""
    answer = answer_event(response.who, response.approve, promotion.task, str(promotion.ids.model_version))
    known = was_authenticated(workspace.settings.prediction_log, answer, promotion.time)
    return response.who if known else f"{response.who}{CLAIMED}"


def _tags(decision: Decision) -> dict[str, str]:
    tags, evidence = {TIME: decision.time.isoformat()}, decision.evidence
    is_cancelled = evidence.get("cancelled", False)  # records of before have none
    if evidence["approve"] is None:
        return tags | {STATE: CANCELLED if is_cancelled else TIMED_OUT}
    # "approved" means that the version is to be put into service.
    refused = CANCELLED if is_cancelled else OVERTAKEN
    state = REFUSED if not evidence["approve"] else APPROVED if decision.outcome == "promote" else refused
    return tags | {"approval.by": evidence["who"], "approval.comment": evidence["comment"], STATE: state}

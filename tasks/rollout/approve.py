"""Prefect tasks: ask for the approval of a promotion without a process that waits, and log the response."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import State, get_client
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.input.actions import read_flow_run_input
from prefect.input.run_input import keyset_from_base_key, keyset_from_paused_state
from prefect.states import Suspended
from pydantic import Field

from perpetune.errors import PerpetuneError
from perpetune.loop import approve as approvals
from perpetune.loop.approve import ApprovalResponse, PendingApproval
from perpetune.loop.rollout.trial import needs_trial
from perpetune.loop.run_context import use_mlflow
from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import PROMOTED, REJECTED, WAITING
from perpetune.runtime.prefect_api import ui_url
from perpetune.settings import Settings
from perpetune.tasks.events import emit
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_verdict
from perpetune.tracking.alias_moves import complete_move
from perpetune.workspace import Workspace

PAUSE_KEY = "approval"
BY_AUTOMATION = "Cancelled by Automation"  # how Prefect's message of a state begins that an automation set
KEYSET = keyset_from_base_key(f"suspended-{PAUSE_KEY}")  # under which Prefect keeps the form and the answer


class Approval(RunInput):
    """The form that Prefect shows when the run is resumed."""

    approve: bool = Field(title="Approve the version?")
    who: str = Field(min_length=1, title="Your name")
    comment: str = Field(min_length=1, title="Comment")


@limited_task(
    "other", name="ask for approval", task_run_name="ask for the approval of version {version}", cache_policy=NO_CACHE
)
def ask_for_approval(workspace: Workspace, promotion: Decision, version: str) -> None:
    """Make a suspended run of `approval/TASK`, which a worker starts once it is resumed with the form.

    It is made, not started and then suspended, so that no process is needed, and it waits at once.
    """
    hours, name = workspace.params.promote.approval_hours, workspace.params.task.name
    flow_run_id = str(suspended_run(name, version, promotion, hours))
    until = approvals.await_approval(workspace, version, flow_run_id, datetime.now(UTC))
    page = f"{ui_url(str(Settings().prefect_api_url))}/runs/flow-run/{flow_run_id}"
    waiting = {"version": version, "reason": promotion.reason, "hours": hours}
    emit(WAITING, name, waiting | {"flow_run_id": flow_run_id, "page": page})
    print(f"version {version} waits for approval until {until:%Y-%m-%d %H:%M UTC}; no process waits with it")
    print(f"next: `perpetune approve {version} --comment '...'`, or resume {page}")


def suspended_run(task_name: str, version: str, promotion: Decision, hours: float) -> UUID:
    """The id of the suspended run; that of before if a killed refresh has made it.

    Raises PerpetuneError if the deployment is missing.
    """
    state: State[Any] = Suspended(timeout_seconds=max(1, round(3600 * hours)), pause_key=PAUSE_KEY)
    keyset = keyset_from_paused_state(state)
    assert keyset == KEYSET
    state.state_details.run_input_keyset = {str(name): key for name, key in keyset.items()}
    form = Approval.with_initial_data(description=as_markdown(promotion))
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"approval/{task_name}")
        except ObjectNotFound as fault:
            raise PerpetuneError(
                f"Prefect has no deployment approval/{task_name}, whose runs wait for a person",
                where=str(client.api_url),
                do="register it: `perpetune up`, or `python -m perpetune.flows deploy` for a work pool",
            ) from fault
        made = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"version": version},
            state=state,
            name=f"approve version {version}?",
            idempotency_key=f"approval of version {version}, {promotion.ids.run_id}",
        )
    form.save(keyset, made.id)
    return made.id


def read_response(flow_run_id: UUID) -> ApprovalResponse:
    """What the person wrote who resumed this run. Raises PerpetuneError if nobody did."""
    answer = _answer(flow_run_id)
    if answer is None:
        raise PerpetuneError(
            "this run has no answer: a refresh makes it, and a person resumes it",
            do="`perpetune approve VERSION --comment '...'`",
        )
    return answer


def _answer(flow_run_id: UUID) -> ApprovalResponse | None:
    found = read_flow_run_input(KEYSET["response"], flow_run_id)
    if not found:
        return None
    answer = Approval.model_validate(found)
    return ApprovalResponse(answer.approve, answer.who, answer.comment)


@limited_task(
    "other", name="due approvals", task_run_name="look for approvals that nobody gave in time", cache_policy=NO_CACHE
)
def due_approvals(workspace: Workspace) -> list[PendingApproval]:
    """Those that timed out, and approved versions whose process was killed before it released them."""
    now = datetime.now(UTC)
    return [each for each in approvals.pending_approvals(workspace) if approvals.is_due(each, now)]


@limited_task(
    "other", name="unheard answers", task_run_name="look for answers that were cut off", cache_policy=NO_CACHE
)
def unheard_answers(workspace: Workspace) -> dict[str, ApprovalResponse]:
    """By version, what people answered to runs that have ended since, so that only a waiting version is left of it."""
    found: dict[str, ApprovalResponse] = {}
    with get_client(sync_client=True) as client:
        for each in approvals.pending_approvals(workspace):
            if each.approved or each.flow_run is None:
                continue
            states = _states(client, each.flow_run)
            if not states or not states[-1].is_final() or _cancelled_by_a_person(states):
                continue
            if (answer := _answer(UUID(each.flow_run))) is not None:
                found[each.version] = answer
    return found


@limited_task(
    "other", name="cancelled approvals", task_run_name="look for approvals that were cancelled", cache_policy=NO_CACHE
)
def cancelled_approvals(workspace: Workspace) -> dict[str, ApprovalResponse | None]:
    """By version that is not in service, the answer (None: there was none) to a run that a person cancelled."""
    use_mlflow(workspace)
    complete_move(workspace.params.task.name)  # a killed process may have left one, which puts a version into service
    with get_client(sync_client=True) as client:
        return {
            each.version: _answer(UUID(each.flow_run))
            for each in approvals.pending_approvals(workspace)
            if each.flow_run is not None and _cancelled_by_a_person(_states(client, each.flow_run))
        }


def _states(client: SyncPrefectClient, flow_run: str) -> list[State[Any]]:
    """All states of the run, the newest last; none if it was deleted in Prefect: nobody can answer, and in time it is due."""
    try:
        return sorted(client.read_flow_run_states(UUID(flow_run)), key=lambda state: state.timestamp)
    except ObjectNotFound:
        return []


def _cancelled_by_a_person(states: Sequence[State[Any]]) -> bool:
    """Whether the run is cancelled, and not by the automation that ends runs which hang: such a run is carried out again."""
    if not states or not (states[-1].is_cancelled() or states[-1].is_cancelling()):
        return False
    first = next(state for state in states if state.is_cancelled() or state.is_cancelling())
    return not (first.message or "").startswith(BY_AUTOMATION)


@limited_task("other", name="record response", task_run_name="log the response to the approval", cache_policy=NO_CACHE)
def record_response(
    workspace: Workspace, promotion: Decision, response: ApprovalResponse | None, *, cancelled: bool = False
) -> Decision:
    decision = approvals.record_response(workspace, promotion, response, cancelled=cancelled)
    create_markdown_artifact(as_markdown(decision), key="verdict", description=decision.reason)
    log_verdict(decision)
    if decision.outcome != "promote" or not needs_trial(workspace):
        event = PROMOTED if decision.outcome == "promote" else REJECTED
        payload = {"version": decision.ids.model_version, "outcome": decision.outcome, "reason": decision.reason}
        emit(event, decision.task, payload)
    return decision

"""What follows a decision: approval, then a trial or the release; for a killed process it follows at the next run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from perpetune.errors import ChampionChanged, NoDecision
from perpetune.loop.approve import (
    ApprovalResponse,
    give_up,
    needs_approval,
    overtake,
    promotion_of,
    require_waiting,
)
from perpetune.loop.planning.step_durations import RELEASE, timed
from perpetune.loop.rollout.trial import needs_trial
from perpetune.policy.decision.record import Decision
from perpetune.tasks.locks import decision_lock
from perpetune.tasks.refresh.disagreements import decide_again
from perpetune.tasks.refresh.track import closing
from perpetune.tasks.rollout.approve import (
    ask_for_approval,
    cancelled_approvals,
    due_approvals,
    record_response,
    unheard_answers,
)
from perpetune.tasks.rollout.release import find_unfinished, release
from perpetune.tasks.rollout.trial import begin_trial
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class CarriedOut:
    """A decision that was carried out, or that `waits` for a person."""

    decision: Decision
    waits: bool = False

    @property
    def outcome(self) -> str:
        return "waiting" if self.waits else self.decision.outcome

    @property
    def ends_refresh(self) -> bool:
        """Whether a refresh has nothing more to do."""
        return self.decision.outcome == "promote"


def put_into_service(
    workspace: Workspace, decision: Decision, taken: dict[str, float], *, approved: bool = False
) -> CarriedOut:
    """Carry out a promotion, or ask a person first. The seconds of a release are added to `taken`."""
    version = decision.ids.model_version
    if decision.outcome == "promote" and needs_approval(workspace) and not approved:
        ask_for_approval(workspace, decision, str(version))
        return CarriedOut(decision, waits=True)
    if decision.outcome == "promote" and needs_trial(workspace):
        begin_trial(workspace, decision)
    elif decision.outcome == "promote":
        with timed(taken, RELEASE):
            release(workspace, decision)
    return CarriedOut(decision)


def carry_out(workspace: Workspace, version: str, response: ApprovalResponse) -> str:
    """What a person decided; returns the outcome. Raises PerpetuneError if the version does not wait any more."""
    with decision_lock(workspace.params.task.name):
        return _carry_out(workspace, version, response)


def _carry_out(workspace: Workspace, version: str, response: ApprovalResponse) -> str:
    require_waiting(workspace, version)
    decision = record_response(workspace, promotion_of(workspace, version), response)
    return put_into_service(workspace, decision, {}, approved=True).outcome


def settle_approvals(workspace: Workspace) -> None:
    """Carry out what was left: answers whose run was killed, approvals that nobody gave in time, approved versions that do
    not serve. What a person cancelled is recorded and not carried out. A version whose decision record was deleted is given
    up, so that it disturbs no check after this one.
    """
    with decision_lock(workspace.params.task.name):
        _settle(workspace)


def _settle(workspace: Workspace) -> None:
    for version, answer in cancelled_approvals(workspace).items():
        print(f"the approval of version {version} was cancelled in Prefect, so the version is not put into service")
        with _settling(workspace, version):
            record_response(workspace, promotion_of(workspace, version), answer, cancelled=True)
    for version, response in unheard_answers(workspace).items():
        print(f"version {version} was answered by {response.who} in a run that was killed, which is carried out now")
        with _settling(workspace, version):
            _carry_out(workspace, version, response)
    for each in due_approvals(workspace):
        with _settling(workspace, each.version):
            promotion = promotion_of(workspace, each.version)
            if each.approved:
                print(f"version {each.version} was approved and not put into service, which is done now")
                put_into_service(workspace, promotion, {}, approved=True)
            else:
                record_response(workspace, promotion, None)


@contextmanager
def _settling(workspace: Workspace, version: str) -> Iterator[None]:
    """What can never be carried out is said once, and ends the approval of the version."""
    try:
        yield
    except NoDecision as fault:
        print(f"nobody is asked to approve version {version} any more: {fault}")
        give_up(workspace, version)
    except ChampionChanged as fault:
        print(str(fault))
        overtake(workspace, version)


def finish(workspace: Workspace) -> CarriedOut | None:
    """Carry out the promotion that a killed refresh had decided, and end its run; None if there is none."""
    with decision_lock(workspace.params.task.name):
        found = find_unfinished(workspace)
        if found is None:
            return None
        with closing(found.run):
            if found.outcome != "promote" or found.settled:
                return None
            return put_into_service(workspace, found.decision, {}, approved=found.approved)


def decide_on_disagreements(workspace: Workspace) -> CarriedOut | None:
    """Decide on the challenger that waits for labels of disagreements, if they have come, and carry it out."""
    with decision_lock(workspace.params.task.name):
        decision = decide_again(workspace)
        return None if decision is None else put_into_service(workspace, decision, {})

"""What follows a decision: approval, then a trial or the release; for a killed refresh it follows at the next one."""

from __future__ import annotations

from perpetune.flows.approval import approve
from perpetune.loop.approve import needs_approval
from perpetune.loop.plan import timed
from perpetune.loop.rollout.trial import needs_trial
from perpetune.loop.step_durations import RELEASE
from perpetune.policy.decision.record import Decision
from perpetune.tasks.disagreements import decide_again
from perpetune.tasks.release import find_unfinished, release
from perpetune.tasks.track import closing
from perpetune.tasks.trial import begin_trial
from perpetune.workspace import Workspace


def put_into_service(
    workspace: Workspace, decision: Decision, taken: dict[str, float], *, approved: bool = False
) -> Decision:
    """Carry out a promotion; the outcome of the decision returned is a person's, if one has to approve it.

    The seconds of a release are added to `taken`.
    """
    if decision.outcome == "promote" and needs_approval(workspace) and not approved:
        decision = approve(workspace, decision)
    if decision.outcome == "promote" and needs_trial(workspace):
        begin_trial(workspace, decision)
    elif decision.outcome == "promote":
        with timed(taken, RELEASE):
            release(workspace, decision)
    return decision


def finish(workspace: Workspace) -> Decision | None:
    """Carry out the promotion that a killed refresh had decided, and end its run; None if there is none."""
    found = find_unfinished(workspace)
    if found is None:
        return None
    with closing(found.run):
        if found.outcome != "promote" or found.settled:
            return None
        return put_into_service(workspace, found.decision, {}, approved=found.approved)


def decide_on_disagreements(workspace: Workspace) -> Decision | None:
    """Decide on the challenger that waits for labels of disagreements, if they have come, and carry it out."""
    decision = decide_again(workspace)
    return None if decision is None else put_into_service(workspace, decision, {})

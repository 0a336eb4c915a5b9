"""Prefect task: decide on a challenger when the labels of disagreements have come."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.loop.approve import needs_approval
from perpetune.loop.disagreements.decide import Progress
from perpetune.loop.disagreements.decide import decide_again as decide_on_labels
from perpetune.loop.rollout.trial import needs_trial
from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import PROMOTED, REJECTED
from perpetune.tasks.events import emit
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_verdict
from perpetune.workspace import Workspace


@limited_task("other", name="decide again", task_run_name="decide on labels of disagreements", cache_policy=NO_CACHE)
def decide_again(workspace: Workspace) -> Decision | None:
    """None if no challenger waits for such labels, or too few have come."""
    decision = decide_on_labels(workspace, str(flow_run.id))
    if isinstance(decision, Progress):
        print(
            f"version {decision.version} waits for labels of disagreements: {decision.labelled} of {decision.asked} have "
            "come (`perpetune labels`)"
        )
        return None
    if decision is None:
        return None
    create_markdown_artifact(as_markdown(decision, {}), key="verdict", description=decision.reason)
    log_verdict(decision)
    if decision.outcome != "promote" or not (needs_approval(workspace) or needs_trial(workspace)):
        event = PROMOTED if decision.outcome == "promote" else REJECTED
        version = decision.ids.model_version
        emit(event, decision.task, {"version": version, "outcome": decision.outcome, "reason": decision.reason})
    return decision

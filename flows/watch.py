"""The watch flow: check the newest traffic; decay triggers a refresh or a rollback."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from perpetune.workspace import open_workspace


def run_name() -> str:
    return f"watch ({flow_run.parameters['trigger']})"


@flow(name="watch", flow_run_name=run_name, log_prints=True)
def watch(trigger: Literal["manual", "schedule"] = "manual", verbose: bool = False) -> str:
    """Check the champion's newest predictions; returns the outcome, or "nothing to check" if there are none.

    A challenger that waits for labels of disagreements is decided on first, if they have come.

    `verbose` logs every reason too (perpetune.tasks.verdict reads it from the run).
    """
    # Imported late: a worker, which only starts runs, does not need MLflow and Evidently.
    from perpetune.flows.release import decide_on_disagreements, settle_approvals
    from perpetune.tasks.check import check
    from perpetune.tasks.refresh.track import tracked
    from perpetune.tasks.rollout.rollback import roll_back
    from perpetune.tasks.rollout.trial import check_trial

    workspace = open_workspace()
    settle_approvals(workspace)
    decide_on_disagreements(workspace)
    with tracked(workspace, "watch", trigger, "check of the newest traffic") as run:
        check_result = check(workspace, run)
        if check_result and check_result.decision.outcome == "roll back":
            roll_back(workspace, check_result.decision)
    check_trial(workspace)
    return check_result.decision.outcome if check_result else "nothing to check"

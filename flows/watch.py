"""One look at the traffic: only decay emits the event that starts a refresh, or goes back to the previous champion."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from perpetune.workspace import open_workspace


def run_name() -> str:
    return f"watch ({flow_run.parameters['trigger']})"


@flow(name="watch", flow_run_name=run_name, log_prints=True)
def watch(trigger: Literal["manual", "schedule"] = "manual", verbose: bool = False) -> str:
    """Judge the newest predictions; returns the verdict, or "nothing to judge".

    `verbose` logs every reason too (perpetune.tasks.verdict reads it from the run).
    """
    # Late: they bring MLflow and Evidently, which a worker, who only starts runs, does without.
    from perpetune.tasks.check import check
    from perpetune.tasks.rollback import roll_back
    from perpetune.tasks.track import tracked
    from perpetune.tasks.trial import judge_trial

    workspace = open_workspace()
    with tracked(workspace, "watch", trigger, "a look at the newest traffic") as run:
        check_result = check(workspace, run)
        if check_result and check_result.decision.outcome == "roll back":
            roll_back(workspace, check_result.decision)
    judge_trial(workspace)
    return check_result.decision.outcome if check_result else "nothing to judge"

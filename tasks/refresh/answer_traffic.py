"""Prefect task: answer stored traffic, to find the requests whose labels would decide on a challenger."""

from __future__ import annotations

from prefect.cache_policies import NO_CACHE

from perpetune.loop.assess.assess import Assessment
from perpetune.loop.disagreements.answer import compare_on_traffic, wants_traffic
from perpetune.loop.disagreements.comparison import TrafficComparison
from perpetune.loop.training.fine_tune import Challenger
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import limited_task
from perpetune.tracking.runs import Run
from perpetune.workspace import Workspace


@limited_task(
    "evaluate",
    name="answer traffic",
    task_run_name="find stored requests that champion and challenger answer differently",
    retries=1,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def answer_traffic(
    workspace: Workspace, run: Run, challenger: Challenger, version: str, assessment: Assessment
) -> TrafficComparison | None:
    """None if the holdouts are large enough for a verdict, or there is too little traffic."""
    if not wants_traffic(workspace, run, assessment):
        return None
    return compare_on_traffic(workspace, challenger, version, assessment, print)

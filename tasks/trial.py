"""Put a promoted version on trial, and judge it until there is a verdict."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.loop.rollout.trial import TrialCheck, begin, judge
from perpetune.policy.decision.record import Decision, Ids, as_markdown, record
from perpetune.runtime.events import ABORTED, DEPLOYED, PROMOTED, TRIAL
from perpetune.tasks.events import emit
from perpetune.tasks.retries import unless_it_is_for_people
from perpetune.tasks.trial_lock import only_judge
from perpetune.tasks.verdict import log_verdict
from perpetune.workspace import Workspace

SECONDS_BETWEEN_CHECKS = 5.0
SECONDS_BETWEEN_LINES = 60.0


@task(name="begin trial", task_run_name="put version {version} on trial", cache_policy=NO_CACHE)
def begin_trial(workspace: Workspace, version: str) -> None:
    trial = begin(workspace, version)
    print(f"version {version} is on trial ({trial.strategy}) with {trial.share:.0%} of the traffic")
    payload = {"version": version, "strategy": trial.strategy, "share": trial.share}
    emit(TRIAL, workspace.params.task.name, payload)


@task(name="judge trial", task_run_name="one look at the trial", cache_policy=NO_CACHE)
def judge_trial(workspace: Workspace) -> str | None:
    """The verdict, None where no trial runs or its own flow judges it."""
    try:
        with only_judge(workspace.params.task.name, wait_seconds=1):
            check = judge(workspace, str(flow_run.id))
    except TimeoutError:
        print("the trial is being judged by its own flow")
        return None
    if check is None:
        return None
    _tell(check, workspace.params.task.name)
    return check.verdict.outcome


@task(
    name="follow trial",
    task_run_name="judge the trial until there is a verdict",
    retries=3,
    retry_delay_seconds=30,
    retry_condition_fn=unless_it_is_for_people,
    cache_policy=NO_CACHE,
)
def follow_trial(workspace: Workspace) -> str | None:
    """The verdict; None where no trial runs any more, as somebody else ended it."""
    with only_judge(workspace.params.task.name):
        return _follow(workspace)


def _follow(workspace: Workspace) -> str | None:
    told = -SECONDS_BETWEEN_LINES
    while True:
        check = judge(workspace, str(flow_run.id))
        if check is None:
            return None
        if check.decision is not None or time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            _tell(check, workspace.params.task.name)
        if check.decision is not None:
            return check.verdict.outcome
        time.sleep(SECONDS_BETWEEN_CHECKS)


def _so_far(check: TrialCheck, task: str) -> Decision:
    """What the trial shows before there is a verdict, as a decision that nothing keeps."""
    ids = Ids(model_version=check.version)
    return record(check.verdict, check.evidence, task=task, time=datetime.now(UTC), ids=ids)


def _tell(check: TrialCheck, task: str) -> None:
    decision = check.decision
    if decision is None:
        log_verdict(_so_far(check, task))
        return
    log_verdict(decision)
    create_markdown_artifact(as_markdown(decision), key="verdict", description=decision.reason)
    payload = {"version": check.version, "outcome": decision.outcome, "reason": decision.reason}
    emit(PROMOTED if check.released else ABORTED, decision.task, payload)
    if check.released and check.released.served:
        emit(DEPLOYED, decision.task, {"version": check.version, "previous": check.released.previous})

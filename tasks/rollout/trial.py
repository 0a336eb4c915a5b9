"""Prefect tasks: put a promoted version on trial, and check it until there is a verdict."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.loop.planning.unfinished import withdrawn_if_champion_changed
from perpetune.loop.rollout.trial import TrialCheck, start_trial
from perpetune.loop.rollout.trial import check_trial as check_running_trial
from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.runtime.events import ABORTED, DEPLOYED, LABELS_WANTED, PROMOTED, TRIAL
from perpetune.tasks.events import emit
from perpetune.tasks.locks import trial_lock
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_verdict
from perpetune.workspace import Workspace

CHECK_SECONDS = 5.0
_LOAD = 0.1  # the most of the time that a followed trial is checked: in a long log a check takes seconds
LOG_SECONDS = 60.0


@limited_task(
    "other",
    name="begin trial",
    task_run_name="put version {decision.ids.model_version} on trial",
    cache_policy=NO_CACHE,
)
def begin_trial(workspace: Workspace, decision: Decision) -> None:
    version = str(decision.ids.model_version)
    with withdrawn_if_champion_changed(decision):
        trial = start_trial(workspace, version, decision.ids.champion_version)
    print(f"version {version} is on trial ({trial.strategy}) with {trial.traffic_ratio:.0%} of the traffic")
    payload = {"version": version, "strategy": trial.strategy, "share": trial.traffic_ratio}
    emit(TRIAL, workspace.params.task.name, payload)


@limited_task("check", name="check trial", task_run_name="check the trial", cache_policy=NO_CACHE)
def check_trial(workspace: Workspace) -> str | None:
    """The outcome; None if no trial runs or the trial flow checks it."""
    try:
        with trial_lock(workspace.params.task.name, wait_seconds=1):
            check = check_running_trial(workspace, str(flow_run.id))
    except TimeoutError:
        print("the trial is checked by the trial flow")
        return None
    if check is None:
        return None
    _say_wanted(check, workspace.params.task.name)
    _report(check, workspace.params.task.name)
    return check.verdict.outcome


@limited_task(
    "trial",
    name="follow trial",
    task_run_name="check the trial until there is a verdict",
    retries=3,
    retry_delay_seconds=30,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def follow_trial(workspace: Workspace) -> str | None:
    """The outcome; None if no trial runs or it was ended meanwhile."""
    with trial_lock(workspace.params.task.name):
        return _follow(workspace)


def _follow(workspace: Workspace) -> str | None:
    logged = -LOG_SECONDS
    while True:
        began = time.monotonic()
        check = check_running_trial(workspace, str(flow_run.id))
        if check is None:
            return None
        _say_wanted(check, workspace.params.task.name)
        if check.decision is not None or time.monotonic() - logged > LOG_SECONDS:
            logged = time.monotonic()
            _report(check, workspace.params.task.name)
        if check.decision is not None:
            return check.verdict.outcome
        time.sleep(pause_after(time.monotonic() - began))


def pause_after(seconds: float) -> float:
    """How long to wait after a check that took so long."""
    return max(CHECK_SECONDS, seconds * (1 / _LOAD - 1))


def _say_wanted(check: TrialCheck, task: str) -> None:
    if check.asked:
        print(f"{check.asked} labels of disagreements are wanted: `perpetune labels`")
        payload = {"reason": check.verdict.reasons[0], "version": check.version, "labels": check.asked}
        emit(LABELS_WANTED, task, payload)


def _so_far(check: TrialCheck, task: str) -> Decision:
    """The trial's evidence before its verdict, as a decision that is not logged."""
    ids = Ids(model_version=check.version)
    return record(check.verdict, check.evidence, task=task, time=datetime.now(UTC), ids=ids)


def _report(check: TrialCheck, task: str) -> None:
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

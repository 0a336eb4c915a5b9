"""Prefect task: check the newest traffic."""

from __future__ import annotations

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.doctor.host import disk
from perpetune.loop.watch.check import CheckResult
from perpetune.loop.watch.check import check as check_traffic
from perpetune.policy.decision.markdown import as_markdown
from perpetune.runtime.events import CHECK_FAILED, DECAYED, DISK_LOW, LABELS_WANTED, OVER_BUDGET
from perpetune.tasks.events import emit
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_verdict
from perpetune.tracking.runs import Run
from perpetune.workspace import Workspace


@limited_task(
    "check",
    name="check",
    task_run_name="check the newest traffic",
    retries=1,
    retry_delay_seconds=10,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def check(workspace: Workspace, run: Run) -> CheckResult | None:
    space = disk(workspace)
    if space.level != "ok":
        emit(DISK_LOW, workspace.params.task.name, {"reason": space.what})
    try:
        result = check_traffic(workspace, run, str(flow_run.id))
    except Exception as fault:  # whatever it was: a monitor that sees nothing says so
        emit(CHECK_FAILED, workspace.params.task.name, {"reason": str(fault)})
        raise
    if result is None:
        print("nothing to check: no champion has answered a request yet")
        return None
    decision = result.decision
    links = {"MLflow run": run.url}
    if result.page is not None:
        create_link_artifact(result.page, "Evidently drift report", key="drift-report")
        links = {"Evidently drift report": result.page, **links}
    create_markdown_artifact(
        as_markdown(decision, links),
        key="verdict",
        description=decision.reason,
    )
    log_verdict(decision)
    if decision.outcome == "retrain" and result.trial is not None:
        print(f"no refresh is started because version {result.trial} is on trial")
    elif decision.outcome == "retrain":
        emit(DECAYED, decision.task, {"reason": decision.reason, "version": decision.ids.champion_version})
    if decision.outcome == "over budget":
        emit(OVER_BUDGET, decision.task, {"reason": decision.reason, "version": decision.ids.champion_version})
    if result.asked:
        print(f"{result.asked} labels are wanted: `perpetune labels`")
        payload = {"reason": decision.reason, "version": decision.ids.champion_version, "labels": result.asked}
        emit(LABELS_WANTED, decision.task, payload)
    return result

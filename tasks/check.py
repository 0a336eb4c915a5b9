"""Look at the newest traffic."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.loop.watch.check import CheckResult
from perpetune.loop.watch.check import check as look_at_traffic
from perpetune.policy.decision.record import as_markdown
from perpetune.runtime.events import DECAYED, LABELS_WANTED
from perpetune.tasks.events import emit
from perpetune.tasks.retries import unless_it_is_for_people
from perpetune.tasks.verdict import log_verdict
from perpetune.tracking.runs import Run
from perpetune.workspace import Workspace


@task(
    name="look",
    task_run_name="judge the newest traffic",
    retries=1,
    retry_delay_seconds=10,
    retry_condition_fn=unless_it_is_for_people,
    cache_policy=NO_CACHE,
)
def check(workspace: Workspace, run: Run) -> CheckResult | None:
    check_result = look_at_traffic(workspace, run, str(flow_run.id))
    if check_result is None:
        print("nothing to judge: no champion has answered a request yet")
        return None
    decision = check_result.decision
    links = {"MLflow run": run.url}
    if check_result.page is not None:
        create_link_artifact(check_result.page, "Evidently's drift report", key="drift-report")
        links = {"Evidently's report": check_result.page, **links}
    create_markdown_artifact(
        as_markdown(decision, links),
        key="verdict",
        description=decision.reason,
    )
    log_verdict(decision)
    if decision.outcome == "retrain" and check_result.trial is not None:
        print(f"no refresh is started: version {check_result.trial} is on trial already")
    elif decision.outcome == "retrain":
        emit(DECAYED, decision.task, {"reason": decision.reason, "version": decision.ids.champion_version})
    if check_result.asked:
        print(f"{check_result.asked} labels are wanted: `perpetune labels`")
        payload = {"reason": decision.reason, "version": decision.ids.champion_version, "labels": check_result.asked}
        emit(LABELS_WANTED, decision.task, payload)
    return check_result

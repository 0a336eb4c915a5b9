"""Look at the newest traffic."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.loop.watch.check import Sighting
from perpetune.loop.watch.check import look as look_at_traffic
from perpetune.policy.decision.record import as_markdown
from perpetune.runtime.events import DECAYED, LABELS_WANTED
from perpetune.tasks.events import emit
from perpetune.tasks.retries import unless_it_is_for_people
from perpetune.tasks.verdict import tell
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
def look(workspace: Workspace, run: Run) -> Sighting | None:
    sighting = look_at_traffic(workspace, run, str(flow_run.id))
    if sighting is None:
        print("there is no traffic of a champion to judge yet")
        return None
    decision = sighting.decision
    links = {"MLflow run": run.url}
    if sighting.page is not None:
        create_link_artifact(sighting.page, "Evidently's drift report", key="drift-report")
        links = {"Evidently's report": sighting.page, **links}
    create_markdown_artifact(
        as_markdown(decision, links),
        key="verdict",
        description=decision.reason,
    )
    tell(decision)
    if decision.outcome == "retrain" and sighting.trial is not None:
        print(f"no refresh is started: version {sighting.trial} is on trial already")
    elif decision.outcome == "retrain":
        emit(DECAYED, decision.task, {"reason": decision.reason, "version": decision.ids.champion_version})
    if sighting.asked:
        print(f"{sighting.asked} labels are wanted: perpetune labels")
        payload = {"reason": decision.reason, "version": decision.ids.champion_version, "labels": sighting.asked}
        emit(LABELS_WANTED, decision.task, payload)
    return sighting

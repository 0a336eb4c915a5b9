"""Say at the start what a refresh will take and what its rows cannot show, and at the end what it took."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from perpetune.loop import plan as plans
from perpetune.loop.curate import Curated
from perpetune.loop.fine_tune import Challenger
from perpetune.loop.plan import Plan, as_line, as_lines, as_table
from perpetune.tasks.verdict import log_details
from perpetune.tracking.runs import Run
from perpetune.workspace import Workspace


@task(name="plan", task_run_name="plan the refresh", cache_policy=NO_CACHE)
def plan(workspace: Workspace, run: Run, curated: Curated) -> Plan:
    """What the rows cannot show is said here too, before anything is trained on them; it refuses nothing."""
    planned = plans.plan(workspace, curated)
    foreseen = plans.log_holdout_warnings(workspace, run, curated)
    for warning in foreseen:
        print(f"warning: {warning.short}")
    print(as_line(planned))
    log_details(*map(str, foreseen), *as_lines(planned))
    create_markdown_artifact(
        "\n".join([as_table(planned), *(f"- {line}" for line in foreseen)]), key="plan", description=planned.source
    )
    return planned


def correct(planned: Plan, training_seconds: float) -> None:
    """The plan with the training's own forecast, in the log and in the artifact."""
    better = plans.corrected(planned, training_seconds)
    print(as_line(better))
    log_details(*as_lines(better))
    create_markdown_artifact(as_table(better), key="plan", description=better.source)


@task(name="compare", task_run_name="planned and taken", cache_policy=NO_CACHE)
def compare(workspace: Workspace, planned: Plan, taken: Mapping[str, float], challenger: Challenger) -> None:
    plans.remember(workspace, planned, taken, challenger.trained.seconds)
    print(plans.compared(planned, taken))

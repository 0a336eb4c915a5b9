"""Prefect tasks: print the plan of a refresh and the holdout warnings, and compare planned and actual durations."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from perpetune.loop.curate import CuratedData
from perpetune.loop.planning import plan as plans
from perpetune.loop.planning.plan import Plan, plan_line, plan_lines, plan_table
from perpetune.loop.training.fine_tune import Challenger
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_details
from perpetune.tracking.runs import Run
from perpetune.workspace import Workspace


@limited_task("other", name="plan", task_run_name="plan the refresh", cache_policy=NO_CACHE)
def plan(workspace: Workspace, run: Run, curated: CuratedData) -> Plan:
    """Print the plan and warnings about holdouts that are too small. It never refuses."""
    planned = plans.plan(workspace, curated)
    warnings = plans.log_holdout_warnings(workspace, run, curated)
    for warning in warnings:
        print(f"warning: {warning.short}")
    print(plan_line(planned))
    log_details(*map(str, warnings), *plan_lines(planned))
    create_markdown_artifact(
        "\n".join([plan_table(planned), *(f"- {line}" for line in warnings)]), key="plan", description=planned.source
    )
    return planned


def correct(planned: Plan, training_seconds: float) -> None:
    """Print the plan again with the training's forecast, and update its artifact."""
    updated = plans.with_forecast(planned, training_seconds)
    print(plan_line(updated))
    log_details(*plan_lines(updated))
    create_markdown_artifact(plan_table(updated), key="plan", description=updated.source)


@limited_task("other", name="compare", task_run_name="compare planned and actual durations", cache_policy=NO_CACHE)
def compare(workspace: Workspace, planned: Plan, taken: Mapping[str, float], challenger: Challenger) -> None:
    plans.save_durations(workspace, planned, taken, challenger.trained.seconds)
    print(plans.planned_vs_taken(planned, taken))

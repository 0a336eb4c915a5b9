"""Prefect task: evaluate base, champion and challenger."""

from __future__ import annotations

from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from perpetune.evaluation.evaluate import Evaluation
from perpetune.loop.assess.assess import Assessment
from perpetune.loop.assess.assess import assess as assess_systems
from perpetune.loop.run_context import REPORT
from perpetune.loop.training.fine_tune import Challenger
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_details
from perpetune.tracking.runs import Run, artifact_url
from perpetune.workspace import Workspace


@limited_task(
    "evaluate",
    name="evaluate",
    task_run_name="evaluate base, champion and challenger",
    retries=1,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def assess(workspace: Workspace, run: Run, challenger: Challenger, version: str) -> Assessment:
    assessment = assess_systems(workspace, run, challenger, version, print)
    for holdout, evaluation in assessment.evaluations.items():
        print(scores_line(holdout, evaluation))
        log_details(*evaluation.summary)
    create_link_artifact(artifact_url(run.url, REPORT), "evaluation report", key="evaluation-report")
    return assessment


def scores_line(holdout: str, evaluation: Evaluation) -> str:
    """The main score of each system, the best first."""
    scores = {name: found[evaluation.main_metric] for name, found in evaluation.metrics.items()}
    best_first = sorted(scores, key=lambda name: -scores[name].value)
    told = ", ".join(f"{name} {100 * scores[name].value:.1f}" for name in best_first)
    return f"{holdout} holdout, {evaluation.main_metric.replace('_', ' ')} of {len(evaluation.rows)} rows: {told}"

"""Prefect tasks: register the challenger, and apply the promotion gate."""

from __future__ import annotations

from functools import partial

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perpetune.errors import PerpetuneError
from perpetune.explain.page import log_page
from perpetune.loop import decide as decisions
from perpetune.loop.approve import needs_approval
from perpetune.loop.assess.assess import Assessment
from perpetune.loop.curate import CuratedData
from perpetune.loop.disagreements.comparison import TrafficComparison
from perpetune.loop.disagreements.decide import ask_for_disagreements
from perpetune.loop.rollout.trial import needs_trial
from perpetune.loop.training.fine_tune import Challenger
from perpetune.policy.decision.markdown import as_markdown
from perpetune.policy.decision.record import Decision
from perpetune.runtime.events import PROMOTED, REJECTED
from perpetune.tasks.events import emit
from perpetune.tasks.time_limits import limited_task
from perpetune.tasks.verdict import log_verdict
from perpetune.tracking.registry import model_url
from perpetune.tracking.runs import MlflowError, Run
from perpetune.workspace import Workspace


@limited_task("other", name="register", task_run_name="register the challenger", cache_policy=NO_CACHE)
def register(workspace: Workspace, run: Run, curated: CuratedData, challenger: Challenger) -> str:
    version = decisions.register(workspace, run, curated, challenger, str(flow_run.id))
    page = model_url(workspace.params.task.name, version)
    create_link_artifact(page, f"version {version}", key="model-version")
    return version


@limited_task("other", name="decide", task_run_name="decide on the challenger", cache_policy=NO_CACHE)
def decide(
    workspace: Workspace,
    run: Run,
    curated: CuratedData,
    challenger: Challenger,
    assessment: Assessment,
    version: str,
    traffic: TrafficComparison | None = None,
) -> Decision:
    ask = partial(ask_for_disagreements, workspace, run, traffic) if traffic is not None else None
    decision = decisions.decide(workspace, run, curated, challenger, assessment, version, str(flow_run.id), ask)
    decided = decision.ids.model_version or version
    create_markdown_artifact(as_markdown(decision, {"MLflow run": run.url}), key="verdict", description=decision.reason)
    log_verdict(decision)
    try:
        log_page(workspace, run, decided)
    except (PerpetuneError, MlflowError) as fault:  # the verdict is valid without its page
        print(f"the explain page could not be written: {fault}")
    if decision.outcome != "promote" or not (needs_approval(workspace) or needs_trial(workspace)):
        event = PROMOTED if decision.outcome == "promote" else REJECTED
        emit(event, decision.task, {"version": decided, "outcome": decision.outcome, "reason": decision.reason})
    return decision

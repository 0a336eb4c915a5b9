"""Step 4: register the challenger, weigh the evidence, and write the decision down."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from perpetune import registry
from perpetune.decision import Decision, Ids, record
from perpetune.evaluation.evaluate import Evaluation
from perpetune.evaluation.evidence import as_evidence, paired_evidence
from perpetune.evaluation.slices import Slice, slices
from perpetune.loop.assess import Assessment
from perpetune.loop.curate import Curated
from perpetune.loop.fine_tune import Challenger
from perpetune.loop.passage import git_commit, log_decision, params_digest
from perpetune.params import PromoteParams, SplitParams
from perpetune.policy.promotion import PairedEvidence, PromotionEvidence, should_promote
from perpetune.tracking import Run
from perpetune.workspace import Workspace


def register(workspace: Workspace, run: Run, curated: Curated, challenger: Challenger, flow_run_id: str) -> str:
    """Make the adapter a version of the task's model; returns its number.

    A pass that goes on after it was broken off keeps the version it has.
    """
    made = registry.made_by(workspace.params.task.name, run, challenger.trained.digest)
    if made is not None:
        return made
    tags = {
        "data.version": curated.version,
        "git.commit": git_commit(workspace.root),
        "base.digest": challenger.card.base_digest,
        "adapter.digest": challenger.trained.digest,
        "prefect.flow_run_id": flow_run_id,
        "answers": f"{run.id}/challenger",
    }
    return registry.register(run, challenger.adapter, challenger.card, tags)


def decide(
    workspace: Workspace,
    run: Run,
    curated: Curated,
    challenger: Challenger,
    assessment: Assessment,
    version: str,
    flow_run_id: str,
) -> Decision:
    """Ask the policy, log the decision record and tag the version with the outcome."""
    evidence = promotion_evidence(assessment, workspace.params.promote)
    ratios = label_ratios(workspace.params.split, evidence.against)
    evidence = replace(evidence, label_ratios=ratios)
    verdict = should_promote(evidence, workspace.params.promote)
    ids = Ids(
        run_id=run.id,
        model_version=version,
        champion_version=assessment.champion,
        data_version=curated.version,
        git_commit=git_commit(workspace.root),
        base_digest=challenger.card.base_digest,
        adapter_digest=challenger.trained.digest,
        prefect_flow_run_id=flow_run_id,
        params_sha256=params_digest(workspace),
    )
    decision = record(verdict, evidence, task=workspace.params.task.name, time=datetime.now(UTC), ids=ids)
    log_decision(run, decision)
    registry.tag_version(decision.task, version, {"decision": decision.outcome, "decision.reason": decision.reason})
    registry.describe_version(decision.task, version, f"{decision.outcome}: {' '.join(decision.reasons)}")
    if decision.outcome != "promote" and assessment.champion is not None:
        # This run asked the champion about the newest reference rows: what the monitor compares with.
        registry.tag_version(decision.task, assessment.champion, {"answers": f"{run.id}/champion"})
    return decision


def label_ratios(params: SplitParams, against: str) -> dict[str, float]:
    """How many of the labels that come join each holdout: curated ones before there is a champion, else production's."""
    return {"frozen": params.frozen_traffic if against == "champion" else params.frozen, "recent": params.recent}


def promotion_evidence(assessment: Assessment, rules: PromoteParams) -> PromotionEvidence:
    """The challenger against the champion, or against the base where there is none, on holdouts and slices."""
    against: Literal["champion", "base"] = "champion" if assessment.champion is not None else "base"
    held_out = assessment.evaluations
    params = held_out["frozen"].params
    found = {name: _on_holdout(evaluation, against, rules) for name, evaluation in held_out.items()}
    sliced = slices(held_out.values(), against, rules.slice_rows)
    return PromotionEvidence(
        frozen=found["frozen"],
        recent=found.get("recent"),
        against=against,
        slices={name: paired_evidence(scores, params, rules) for name, scores in sliced.items()},
        limits=assessment.limits,
    )


def _on_holdout(evaluation: Evaluation, against: str, rules: PromoteParams) -> PairedEvidence:
    scores = Slice(evaluation.scored[against].scores, evaluation.scored[evaluation.subject].scores)
    return as_evidence(evaluation.comparisons[against], scores, evaluation.params, rules)

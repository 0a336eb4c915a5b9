"""Step 4, decide: register the challenger, apply the promotion gate, and log the decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from perpetune.curation.rows.sources import is_traffic
from perpetune.evaluation.costs import RefreshEconomics
from perpetune.evaluation.economics.equal_quality import SystemCost
from perpetune.evaluation.evaluate import Evaluation
from perpetune.evaluation.evidence import balanced_evidence, paired_evidence, recalls
from perpetune.evaluation.pooled_slices import pools
from perpetune.evaluation.scores.mistake_costs import COST_SCORE
from perpetune.evaluation.slices import (
    Slice,
    inputs_of_slices,
    joined,
    labels_of,
    paired_scores,
    right_by_label,
    slices,
)
from perpetune.loop.assess.anchor import anchor_of
from perpetune.loop.assess.assess import Assessment
from perpetune.loop.assess.holdout_uses import count_verdict, uses_before
from perpetune.loop.curate import CuratedData
from perpetune.loop.planning.unfinished import tag_versions
from perpetune.loop.run_context import TRIGGER, git_commit, log_decision, params_digest
from perpetune.loop.training.fine_tune import Challenger
from perpetune.loop.untrained_versions import save_linear_version, save_untrained_version
from perpetune.model.release import UNTRAINED, evaluated_file
from perpetune.params import PromoteParams, SplitParams
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.promotion.choice import SERVED, Choice, choose
from perpetune.policy.promotion.costs import AnswerCost
from perpetune.policy.promotion.evidence import (
    Anchor,
    HostedComparison,
    MistakeCostEvidence,
    PairedEvidence,
    PromotionEvidence,
    Recall,
    Rival,
)
from perpetune.policy.promotion.rules import has_floor
from perpetune.policy.verdict import Interval, Verdict
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import count_unasked
from perpetune.records import to_json
from perpetune.statistics.balanced_accuracy import balanced_mean
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, artifact_url, log_text, read_run
from perpetune.workspace import Workspace

RIVALS = ("majority", "linear", "embeddings", "base", "few-shot", "recorded", "hosted")
LINEAR, LANGUAGE_MODELS = ("linear", "embeddings"), ("base", "few-shot", "recorded", "hosted")
# Asks for labels, or decides without: the evidence with that on stored traffic, and the verdict.
Ask = Callable[[PromotionEvidence], tuple[PromotionEvidence, Verdict]]
SUBJECTS = SERVED | {"challenger": "the challenger"}


def register(workspace: Workspace, run: Run, curated: CuratedData, challenger: Challenger, flow_run_id: str) -> str:
    """Register the adapter as a version of the task's model; returns its number.

    A resumed refresh returns the version that it registered before.
    """
    made = registry.version_from_run(workspace.params.task.name, run, challenger.trained.digest)
    if made is not None:
        return made
    tags = {
        "data.version": curated.version,
        "data.card": artifact_url(run.url, "data/card.html"),
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
    curated: CuratedData,
    challenger: Challenger,
    assessment: Assessment,
    version: str,
    flow_run_id: str,
    ask: Ask | None = None,
) -> Decision:
    """Apply the promotion gate, log the decision record and tag the version with the outcome.

    `ask` is called if the verdict is to collect more labels: it asks for those of disagreements on stored traffic, or decides
    at once if none is lacking there.

    If a simpler system is chosen it becomes a version too, and the decision is about that one; the challenger's
    `version` is tagged with the version chosen instead. The decision record is the intent of all that follows: see
    perpetune/loop/planning/unfinished.py. Raises ChampionChanged, before it decides, if another version has become champion
    during the evaluation; the next refresh then evaluates again, without training.
    """
    registry.require_champion(challenger.card.task, version, assessment.champion)
    rules = workspace.params.promote
    evidence = gate_evidence(run, assessment, rules)
    ratios, unasked = label_ratios(workspace.params.split, evidence.against), unasked_in_recent(workspace, assessment)
    anchor = _anchor(workspace, run, challenger, assessment)
    evidence = replace(evidence, label_ratios=ratios, unasked=unasked, anchor=anchor)
    choice = choose(evidence, rules)
    if ask is not None and choice.verdict.outcome == "collect more labels":
        evidence, verdict = ask(evidence)
        reasons = tuple(dict.fromkeys((*verdict.reasons, *choice.verdict.reasons)))
        choice = Choice(replace(verdict, reasons=reasons), "challenger" if verdict.outcome == "promote" else None)
    chosen = version
    if choice.system is not None and choice.system != "challenger":
        chosen = _register_rival(workspace, run, assessment, choice.system, registry.get(challenger.card.task, version))
    ids = Ids(
        run_id=run.id,
        model_version=chosen,
        champion_version=assessment.champion,
        data_version=curated.version,
        git_commit=git_commit(workspace.root),
        base_digest=challenger.card.base_digest,
        adapter_digest=challenger.trained.digest,
        prefect_flow_run_id=flow_run_id,
        params_sha256=params_digest(workspace),
    )
    decision = record(
        choice.verdict,
        evidence,
        task=workspace.params.task.name,
        time=datetime.now(UTC),
        ids=ids,
        system=choice.system,
    )
    held_out = {holdout: evaluation.rows for holdout, evaluation in assessment.evaluations.items()}
    count_verdict(run, held_out, uses_before(workspace, run))
    log_decision(workspace, run, decision)
    tag_versions(decision)
    return decision


def _anchor(workspace: Workspace, run: Run, challenger: Challenger, assessment: Assessment) -> Anchor | None:
    frozen = assessment.evaluations.get("frozen")
    if assessment.champion is None or frozen is None:
        return None
    params, folder = workspace.params, workspace.run_folder(run.id)
    return anchor_of(challenger.card.task, frozen, folder, params.evaluate, params.promote)


def _register_rival(
    workspace: Workspace, run: Run, assessment: Assessment, system: str, challenger: registry.Version
) -> str:
    """Register an untuned system as a version, or return the one that this run registered before."""
    candidate = assessment.candidates[system]
    folder = workspace.run_folder(run.id) / system
    if candidate.model is not None:
        digest = save_linear_version(folder, candidate.card, candidate.model)
    else:
        digest = save_untrained_version(folder, candidate.card)
    found = candidate.evaluated.model_dump(mode="json")
    log_text(run, to_json(found), evaluated_file(candidate.card.system))
    tags = {"adapter.digest": digest, "answers": f"{run.id}/{system}", registry.SYSTEM: candidate.card.system}
    tags[registry.EVALUATED_AS] = system
    made = registry.version_from_run(candidate.card.task, run, digest)
    shared = ("data.version", "data.card", "git.commit", "base.digest", "prefect.flow_run_id")
    tags = {name: challenger.tags[name] for name in shared if name in challenger.tags} | tags
    return made or registry.register(run, folder, candidate.card, tags)


def unasked_in_recent(workspace: Workspace, assessment: Assessment) -> int:
    """How many labels of the recent holdout's traffic arrived without a label request."""
    recent = assessment.evaluations.get("recent")
    traffic = [row.id for row in recent.rows if is_traffic(row)] if recent else []
    if not traffic:
        return 0
    log = open_log(workspace.settings.prediction_log)
    try:
        return count_unasked(log, traffic)
    finally:
        log.dispose()


def gate_evidence(run: Run, assessment: Assessment, rules: PromoteParams) -> PromotionEvidence:
    """The evidence as the gate of this refresh judges it: after decay, if that has started the run."""
    evidence = promotion_evidence(assessment, rules)
    return after_decay(evidence) if read_run(run.id).tags.get(TRIGGER) == "decay" else evidence


def after_decay(evidence: PromotionEvidence) -> PromotionEvidence:
    """The evidence of a refresh that decay has started, for the challenger and for its rivals."""
    rivals = {
        name: replace(rival, gate=rival.gate and replace(rival.gate, after_decay=True))
        for name, rival in evidence.rivals.items()
    }
    return replace(evidence, after_decay=True, rivals=rivals)


def label_ratios(params: SplitParams, against: str) -> dict[str, float]:
    """The ratio of new labels that join each holdout; of `ingest`ed rows before there is a champion, else of traffic."""
    return {"frozen": params.frozen_traffic if against == "champion" else params.frozen, "recent": params.recent}


def promotion_evidence(assessment: Assessment, rules: PromoteParams) -> PromotionEvidence:
    """The challenger against the champion, or against the base if there is none, with its rivals."""
    against: Literal["champion", "base"] = "champion" if assessment.champion is not None else "base"
    evidence = _against(assessment, against, "challenger", rules)
    rivals = {
        name: _rival(assessment, against, name, rules)
        for name in RIVALS
        if any(name in evaluation.scored for evaluation in assessment.evaluations.values())
    }
    return replace(
        evidence,
        rivals={name: rival for name, rival in rivals.items() if rival is not None},
        hosted=_against_hosted(assessment, rules),
        answer_costs=_answer_costs(assessment.economics) if assessment.economics else {},
    )


def _answer_costs(economics: RefreshEconomics) -> dict[str, AnswerCost]:
    return {cost.name: _answer_cost(cost, economics.confidence) for cost in economics.systems}


def _answer_cost(cost: SystemCost, level: float) -> AnswerCost:
    right = cost.dollars_per_1000_right
    return AnswerCost(
        dollars_per_1000=cost.dollars_per_1000.value,
        score=cost.accuracy.value if cost.accuracy else None,
        dollars_per_1000_right=right.value if right else None,
        right_between=Interval(right.low, right.high, level) if right else None,
    )


def _against_hosted(assessment: Assessment, rules: PromoteParams) -> dict[str, HostedComparison]:
    """What serves or may serve, each against the hosted model on the rows that both answered."""
    found = {name: _compared_with_hosted(assessment, name, rules) for name in (*SUBJECTS, "champion")}
    return {name: one for name, one in found.items() if one is not None}


def _compared_with_hosted(assessment: Assessment, name: str, rules: PromoteParams) -> HostedComparison | None:
    """None if they have no row in common."""
    evaluations = assessment.evaluations.values()
    on = [each for each in evaluations if {name, "hosted"} <= set(each.scored)]
    scores = _pooled(on, "hosted", name)
    if not scores.ours:
        return None
    theirs, ours = _means(assessment, on, "hosted", name)
    left_out = sum(each.unanswered("hosted") if "hosted" in each.scored else len(each.rows) for each in evaluations)
    return HostedComparison(ours, theirs, _lead(assessment, "hosted", name, rules), left_out)


def _means(assessment: Assessment, on: Sequence[Evaluation], behind: str, ahead: str) -> tuple[float, float]:
    """The scores of two systems on the rows that both answered, in the gate's metric."""
    scores = _pooled(on, behind, ahead)
    if assessment.balanced:
        labels = [label for each in on for label in labels_of(each, behind, ahead)]
        return balanced_mean(labels, scores.theirs), balanced_mean(labels, scores.ours)
    return sum(scores.theirs) / len(scores.theirs), sum(scores.ours) / len(scores.ours)


def _against(
    assessment: Assessment, against: Literal["champion", "base"], subject: str, rules: PromoteParams
) -> PromotionEvidence:
    """A system against what serves, on holdouts, slices and labels. All limits but leakage apply to the challenger only."""
    held_out = assessment.evaluations
    params = held_out["frozen"].params
    on = {name: each for name, each in held_out.items() if against in each.scored and subject in each.scored}
    found = {name: paired_evidence(paired_scores(each, against, subject), params, rules) for name, each in on.items()}
    sliced = slices(on.values(), against, subject)
    small = {name: len(scores.ours) for name, scores in sliced.items() if len(scores.ours) < rules.slice_rows}
    inputs = inputs_of_slices(on.values(), against, subject) if small else {}
    pooled = pools({name: inputs[name] for name in small}, rules.slice_rows)
    tested = {name: scores for name, scores in sliced.items() if name not in small}
    tested |= {name: joined(sliced[member] for member in members) for name, members in pooled.items()}
    alone = {name: rows for name, rows in small.items() if not any(name in members for members in pooled.values())}
    gaining = on["recent"] if against == "champion" and "recent" in on else on["frozen"]
    balanced = _balanced([gaining], against, subject, rules) if assessment.balanced else None
    return PromotionEvidence(
        frozen=found["frozen"],
        recent=found.get("recent"),
        against=against,
        slices={name: paired_evidence(scores, params, rules) for name, scores in tested.items()},
        limits={
            name: limit
            for name, limit in assessment.limits.items()
            if subject == "challenger" or "leakage" in name  # other limits were measured for the challenger only
        },
        balanced=balanced,
        recalls=_recalls(assessment, on.values(), against, subject, rules),
        small=alone,
        pooled=pooled,
        untrained=against == "base" or assessment.champion_system in UNTRAINED,
        refitted=against == "champion" and assessment.champion_system == "linear",
        subject=SUBJECTS[subject],
        metric=_metric(assessment),
        mistake_costs=_mistake_costs(on["frozen"], against, subject),
        uses=assessment.uses,
    )


def _recalls(
    assessment: Assessment, evaluations: Iterable[Evaluation], against: str, subject: str, rules: PromoteParams
) -> dict[str, Recall]:
    """Of all labels if the metric treats rare ones apart, else of those with a floor of their own."""
    found = right_by_label(evaluations, against, subject)
    if not (assessment.balanced or rules.costs is not None):
        found = {label: scores for label, scores in found.items() if has_floor(label, rules)}
    return recalls(found, rules.alpha, serves=against == "champion")


def _mistake_costs(frozen: Evaluation, against: str, subject: str) -> MistakeCostEvidence | None:
    """What mistakes cost on the frozen holdout, if costs are set."""
    if frozen.costs is None:
        return None
    return MistakeCostEvidence(
        frozen.mistake_cost(subject, frozen.costs), frozen.mistake_cost(against, frozen.costs), frozen.costs.largest
    )


def _balanced(evaluations: Sequence[Evaluation], against: str, subject: str, rules: PromoteParams) -> PairedEvidence:
    labels = [label for each in evaluations for label in labels_of(each, against, subject)]
    return balanced_evidence(labels, _pooled(evaluations, against, subject), evaluations[0].params, rules)


def _pooled(evaluations: Sequence[Evaluation], against: str, subject: str) -> Slice:
    """Scores on the rows of all holdouts that both have answered."""
    return joined(paired_scores(each, against, subject) for each in evaluations)


def _rival(
    assessment: Assessment, against: Literal["champion", "base"], name: str, rules: PromoteParams
) -> Rival | None:
    """A rival against the challenger and against what serves; None if they have no row in common."""
    on = [each for each in assessment.evaluations.values() if name in each.scored]
    scores = _pooled(on, name, "challenger")
    if not scores.ours:
        return None
    theirs, ours = _means(assessment, on, name, "challenger")
    serves = name in assessment.candidates and name != against and name in assessment.evaluations["frozen"].scored
    return Rival(
        theirs,
        ours,
        _lead(assessment, name, "challenger", rules),
        _against(assessment, against, name, rules) if serves else None,
        _language_models(assessment, name, rules) if name in LINEAR else {},
    )


def _lead(assessment: Assessment, behind: str, ahead: str, rules: PromoteParams) -> PairedEvidence:
    """One system minus another on the rows of all holdouts that both answered, in the gate's metric."""
    on = [each for each in assessment.evaluations.values() if {behind, ahead} <= set(each.scored)]
    if assessment.balanced:
        return _balanced(on, behind, ahead, rules)
    return paired_evidence(_pooled(on, behind, ahead), on[0].params, rules)


def _language_models(assessment: Assessment, linear: str, rules: PromoteParams) -> dict[str, PairedEvidence]:
    """The language models beside the challenger that a linear model would replace, each minus the linear model."""
    names = [*LANGUAGE_MODELS, *(["champion"] if assessment.champion_system != "linear" else [])]
    evaluations = assessment.evaluations.values()
    common = [
        name
        for name in names
        if any(_pooled([each], linear, name).ours for each in evaluations if {linear, name} <= set(each.scored))
    ]
    return {name: _lead(assessment, linear, name, rules) for name in common}


def _metric(assessment: Assessment) -> str:
    if assessment.balanced:
        return "balanced accuracy"
    if assessment.evaluations["frozen"].costs is not None:
        return COST_SCORE
    return assessment.evaluations["frozen"].main_metric.replace("_f1", " F1").replace("_", " ")

"""The decision on a challenger from labels of disagreements: as they come, without training again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import TypeAdapter
from sqlalchemy import Engine

from perpetune.evaluation.scores.mistake_costs import gate_metric, mistake_costs
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.loop.disagreements.comparison import TrafficComparison, TrafficSample
from perpetune.loop.label_rule import label_rule
from perpetune.loop.run_context import RECORD, git_commit, log_later_decision, params_digest, use_mlflow
from perpetune.params import EvaluateParams
from perpetune.policy.decision.record import Decision, record
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence, TrafficEvidence
from perpetune.policy.promotion.traffic_comparison import LabelPlan, labels_to_ask, should_promote_on_traffic
from perpetune.policy.verdict import Interval, Verdict
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import Drawn, request_labels
from perpetune.prediction_log.queries import labels_of_requests
from perpetune.records import to_json
from perpetune.statistics.disagreements import Disagreements, compare_disagreements
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, artifact, find_run, log_text, newest_run
from perpetune.workspace import Workspace

COMPARISON = "traffic.json"
ENOUGH = 0.9  # of the labels asked for: the last ones may never come
_EVIDENCE = TypeAdapter(PromotionEvidence)


@dataclass(frozen=True)
class Progress:
    """How many of the labels of disagreements that a challenger waits for have come."""

    version: str
    labelled: int
    asked: int

    @property
    def complete(self) -> bool:
        return self.labelled >= ENOUGH * self.asked


def ask_for_disagreements(
    workspace: Workspace, run: Run, compared: TrafficComparison, evidence: PromotionEvidence
) -> tuple[PromotionEvidence, Verdict]:
    """Ask for the labels that both tests lack, and keep the comparison with the run; returns the verdict until they come.

    If no label is lacking, the verdict is that of the comparison as it is. The evidence returned includes the comparison.
    """
    params = workspace.params
    evidence = replace(evidence, traffic=traffic_evidence(compared, {}, params.evaluate))
    plan = labels_to_ask(evidence, params.promote)
    verdict = should_promote_on_traffic(evidence, params.promote)
    if not plan.total:
        return evidence, verdict
    _ask(workspace, run, compared, plan)
    return evidence, Verdict("collect more labels", (asked_sentence(compared, plan),), verdict.rule)


def asked_sentence(compared: TrafficComparison, plan: LabelPlan) -> str:
    """What was asked for, and why so few labels are enough."""
    recent, earlier = compared.recent, compared.earlier
    of_earlier = f" and on {len(earlier.differing):,} of {earlier.rows:,} earlier ones" if earlier.rows else ""
    return (
        f"Label {plan.total} requests to decide (`perpetune labels`): champion and challenger disagree on "
        f"{len(recent.differing):,} of {recent.rows:,} recent requests{of_earlier}, and {plan.recent} and {plan.earlier} of "
        "these are drawn by lot; where they agree no label is needed."
    )


def _ask(workspace: Workspace, run: Run, compared: TrafficComparison, plan: LabelPlan) -> None:
    asked = compared.with_asked(plan.recent, plan.earlier)
    before = {each.request_id for each in compared.asked()}
    log_text(run, to_json(asked.model_dump(mode="json")), COMPARISON)
    drawn = [
        Drawn(each.request_id, "disagreement", sample.asked / len(sample.differing))
        for sample in (asked.recent, asked.earlier)
        for each in sample.differing[: sample.asked]
        if each.request_id not in before
    ]
    log = open_log(workspace.settings.prediction_log)
    try:
        request_labels(log, drawn, datetime.now(UTC), urgent=True)
    finally:
        log.dispose()


def decide_again(workspace: Workspace, flow_run_id: str) -> Decision | Progress | None:
    """The decision on the newest challenger, if the labels asked for have come; how many have, if not yet enough.

    None if no challenger waits for such labels: the newest refresh came to another verdict, or its champion is gone. A
    verdict that still lacks labels asks for more disagreements, if there are any.
    """
    use_mlflow(workspace)
    task, rules = workspace.params.task.name, workspace.params.promote
    found = newest_run(task, "refresh")
    compared = _comparison(workspace, found[0].id) if found else None
    if found is None or compared is None or not compared.asked():
        return None
    version = registry.get(task, compared.challenger)
    champion = registry.find(task, "champion")
    if not _waits(version) or registry.wanted(task).trial is not None:
        return None
    if champion is None or champion.version != compared.champion:
        return None
    path = artifact(found[0].id, RECORD, workspace.run_folder(found[0].id))
    if path is None:
        return None
    first = Decision.from_json(path.read_text(encoding="utf-8"))
    differences = _differences(workspace, compared)
    progress = Progress(version.version, len(differences), len(compared.asked()))
    if not progress.complete:
        return progress
    evidence = replace(evidence_of(first), traffic=traffic_evidence(compared, differences, workspace.params.evaluate))
    verdict = should_promote_on_traffic(evidence, rules)
    ids = first.ids.model_copy(
        update={
            "model_version": version.version,
            "git_commit": git_commit(workspace.root),
            "params_sha256": params_digest(workspace),
            "prefect_flow_run_id": flow_run_id,
        }
    )
    if verdict.outcome == "collect more labels":
        plan = _plan(compared, labels_to_ask(evidence, rules))
        _ask(workspace, find_run(first.ids.run_id or found[0].id), compared, plan)
    system = "challenger" if verdict.outcome == "promote" else None
    decision = record(verdict, evidence, task=task, time=datetime.now(UTC), ids=ids, system=system)
    log_later_decision(workspace, decision, version)
    return decision


def _waits(version: registry.Version) -> bool:
    """Whether labels decide on the version; still, if a process was killed between their decision and the release."""
    decision = version.tags.get("decision")
    return decision == "collect more labels" or (decision == "promote" and registry.STATE not in version.tags)


def _plan(compared: TrafficComparison, wanted: LabelPlan) -> LabelPlan:
    """As many as are left."""
    left = (len(sample.differing) - sample.asked for sample in (compared.recent, compared.earlier))
    return LabelPlan(*(min(number, most) for number, most in zip((wanted.recent, wanted.earlier), left, strict=True)))


def evidence_of(decision: Decision) -> PromotionEvidence:
    """The evidence of a promotion's decision record."""
    return _EVIDENCE.validate_python(decision.evidence)


def traffic_evidence(
    compared: TrafficComparison, differences: Mapping[str, float], params: EvaluateParams
) -> TrafficEvidence:
    """Both samples with the labels that have come: `differences` of scores by request."""

    def paired(sample: TrafficSample) -> PairedEvidence | None:
        found = sample.disagreements(differences)
        return _paired(found, params.confidence) if sample.rows else None

    return TrafficEvidence(paired(compared.recent), paired(compared.earlier), compared.rounds)


def _paired(found: Disagreements, confidence: float) -> PairedEvidence:
    compared = compare_disagreements(found, confidence)
    return PairedEvidence(
        difference=compared.difference,
        interval=Interval(compared.low, compared.high, confidence),
        p_value=compared.p_value,
        rows=found.rows,
        discordance=compared.discordance,
        differing=found.differing,
        labels=len(found.differences),
    )


def _comparison(workspace: Workspace, run_id: str) -> TrafficComparison | None:
    path = artifact(run_id, COMPARISON, workspace.run_folder(run_id))
    return TrafficComparison.model_validate_json(path.read_text(encoding="utf-8")) if path else None


def _differences(workspace: Workspace, compared: TrafficComparison) -> dict[str, float]:
    """Challenger minus champion, by request, of the disagreements that are labelled."""
    task = workspace.params.task
    costs = mistake_costs(workspace.params.promote.costs)
    score = gate_metric(scoring_of(task.kind, task.output_schema), costs)
    log: Engine = open_log(workspace.settings.prediction_log)
    try:
        asked = [each.request_id for each in compared.asked()]
        labels = labels_of_requests(log, task.name, asked, label_rule(workspace))
    finally:
        log.dispose()
    return {
        each.request_id: score(labels[each.request_id], each.challenger) - score(labels[each.request_id], each.champion)
        for each in compared.asked()
        if each.request_id in labels
    }

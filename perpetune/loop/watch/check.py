"""A check: compare the champion's newest traffic with the reference, and decide whether it has decayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.evaluation.scores.mistake_costs import deciding_scoring
from perpetune.loop.first_version import is_first_version
from perpetune.loop.label_rule import label_rule
from perpetune.loop.rollout.replay import replay
from perpetune.loop.run_context import git_commit, log_decision, params_digest
from perpetune.loop.unasked_labels import unasked_labels
from perpetune.loop.watch.decay_check import DecayCheck, LabelledRows, check_decay
from perpetune.loop.watch.drift_check import check_drift, drift_state
from perpetune.loop.watch.estimates import estimates
from perpetune.loop.watch.first_refresh import first_refresh_evidence
from perpetune.loop.watch.label_requests import ask_for_labels, draw_standing_lot, lot_has_come
from perpetune.loop.watch.reference import (
    answers,
    newest_answers,
    promoted_answers,
    reference_examples,
    reference_scores,
    scored_by_cost,
)
from perpetune.loop.watch.refresh_history import refreshes_before
from perpetune.monitoring.detector_state import DETECTOR, LOTS, DetectorState, counting, from_text, to_text
from perpetune.monitoring.drift_state import DRIFT, DriftState
from perpetune.monitoring.drift_state import to_text as drift_text
from perpetune.monitoring.estimated_accuracy import ScoredRow
from perpetune.monitoring.independent import independent
from perpetune.monitoring.window import Window
from perpetune.params import WatchParams
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.estimated_accuracy import EstimatedFall, estimate_line, most_trusted
from perpetune.policy.first_refresh import should_tune_first_version
from perpetune.policy.ignorable import Ignorability
from perpetune.policy.label_requests import decide_without_labels
from perpetune.policy.promotion.cost_margin import margin_by_cost
from perpetune.policy.retraining import RetrainEvidence, should_retrain
from perpetune.policy.rollout import RollbackEvidence, should_roll_back, why_no_rollback
from perpetune.policy.verdict import Verdict
from perpetune.prediction_log.answers.day_window import predictions_of_a_day
from perpetune.prediction_log.database import open_log, redacted
from perpetune.prediction_log.labels.admission import admit, newly_admitted
from perpetune.prediction_log.queries import counts, recent_predictions
from perpetune.records import Prediction, RecordedAnswer
from perpetune.runtime.gateway_client import NoGateway, gateway_of
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import MlflowError, Run, artifact_url, log_file, log_metrics, tag
from perpetune.workspace import Workspace

REPORT = "drift.html"
MAX_ERROR = 1000  # characters of a tag
HISTORY = 5000  # labels before a check that are read to tell clusters and to take a fall apart


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. `page` is the URL of the drift report in MLflow, None if there is none.

    `rows` and `labelled` count the predictions in the window and the new labels; `trial` is the version on trial;
    `asked` counts the labels requested.
    """

    decision: Decision
    page: str | None
    rows: int
    labelled: int
    trial: str | None = None
    asked: int = 0


@dataclass(frozen=True)
class LogWindow:
    """What a check reads from the prediction log: the newest traffic (of a day at least, if there is more than a window),
    and labels that may judge since the last check.

    `last` are the newest requests with such labels; `labels` counts labels of all versions. `unasked` says whether labels
    that came unasked are among them.
    """

    recent: list[Prediction]
    labelled: LabelledRows
    last: list[Prediction]
    labels: int
    unasked: Ignorability

    def judges(self, row: Prediction) -> bool:
        """Whether the request has a label that judges the version."""
        return row.label is not None and (row.weight is not None or (row.chosen == "unasked" and self.unasked.decides))

    def trusted(self, workspace: Workspace) -> int:
        """How many of `last` came unasked and count only because `watch.unasked` says so."""
        return sum(row.chosen == "unasked" for row in self.last) if workspace.params.watch.unasked == "trust" else 0


def check(workspace: Workspace, run: Run, flow_run_id: str) -> CheckResult | None:
    """Check the champion's newest predictions; None if there is no champion or it has no traffic yet.

    Fails if an input of the check is missing or cannot be read, and says so on the version.
    """
    champion = registry.find(workspace.params.task.name, "champion")
    if champion is None:
        return None
    try:
        result = _check(workspace, run, champion, flow_run_id)
    except Exception as fault:  # whatever it was, the monitor saw nothing
        _say_failed(champion, fault)
        raise
    if registry.CHECK_ERROR in champion.tags:
        registry.drop_tag(champion.task, champion.version, registry.CHECK_ERROR)
    return result


def _say_failed(champion: Version, fault: Exception) -> None:
    """Tag the version, if MLflow still can."""
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}: {fault or type(fault).__name__}"[:MAX_ERROR]
    try:
        registry.tag_version(champion.task, champion.version, {registry.CHECK_ERROR: text})
    except (MlflowError, OSError):
        pass  # the check fails with its own error


def _check(workspace: Workspace, run: Run, champion: Version, flow_run_id: str) -> CheckResult | None:
    task = workspace.params.task
    if is_first_version(champion.run_id):
        return _check_first_version(workspace, run, champion, flow_run_id)
    folder = workspace.run_folder(run.id)
    newest = newest_answers(champion, folder)
    reference = promoted_answers(workspace, champion, newest, folder)
    params = _by_cost(workspace, reference)
    before = counting(from_text(champion.tags.get(DETECTOR)), _scored_by(workspace))
    traffic = _read_log(workspace, champion, before.until)
    if not traffic.recent:
        _require_no_labels(workspace, champion, before)
        return None
    window = Window(
        traffic.recent,
        reference_examples(workspace),
        {row.id: (row.output, row.confidence) for row in newest},
        task.kind,
        deciding_scoring(workspace.params).score,
    )
    report = folder / REPORT
    drift_before, now = drift_state(champion), datetime.now(UTC)
    estimated = estimates(workspace, champion, window, reference, _scored(traffic, window), now, params)
    trusted = most_trusted(estimated.found)
    lines = (*map(estimate_line, estimated.found), *estimated.notes)
    drift, drift_after = check_drift(workspace, champion, window, drift_before, report, now, lines)
    log_file(run, report)
    report.unlink()  # MLflow has it, 1.6 MB an hour
    decay_check = check_decay(traffic.labelled, window, reference, before, params)
    refreshes = refreshes_before(champion, workspace.params.refresh.cooldown_minutes)
    evidence = RetrainEvidence(
        labelled=decay_check.new,
        labelled_in_all=decay_check.detector_state.labels,
        decay=decay_check.decay,
        alarms_in_a_row=decay_check.detector_state.alarms,
        drift=drift,
        minutes_since_refresh=refreshes.minutes_since,
        unsuccessful_refreshes=refreshes.failures,
        device_hours=refreshes.device_hours,
        estimate=trusted,
        other_estimates={each.method: each for each in estimated.found if each is not trusted},
        labelled_in_window=sum(traffic.judges(row) for row in traffic.recent),
        labels_since_refresh=None if refreshes.labels is None else traffic.labels - refreshes.labels,
        metric=_metric(workspace),
        unasked=traffic.trusted(workspace),
        independent=decay_check.independent,
        askable=_askable(workspace, champion, decay_check.detector_state, traffic),
        labels_per_day=decay_check.per_day,
        labels_of_change=refreshes.labels_of_change,
    )
    verdict = should_retrain(evidence, params, workspace.params.refresh)
    verdict = replace(verdict, reasons=(*verdict.reasons, *traffic.unasked.sentences(), *estimated.notes))
    early = _rollback_evidence(workspace, champion, decay_check, verdict, traffic, window, folder)
    rollback = should_roll_back(early) if early else None
    if rollback:
        rollback = replace(rollback, reasons=(*rollback.reasons, *traffic.unasked.sentences()))
    if early and rollback is None and (why := why_no_rollback(early)):
        verdict = replace(verdict, reasons=(*verdict.reasons, why))
    verdict = decide_without_labels(verdict, evidence, params, workspace.params.refresh)
    ids = _ids(workspace, run, champion, flow_run_id)
    decided = (rollback, early) if rollback and early else (verdict, evidence)
    decision = record(*decided, task=task.name, time=datetime.now(UTC), ids=ids)
    log_decision(workspace, run, decision)
    log_metrics(run, _metrics(evidence, len(traffic.recent)))
    is_early = decision.outcome == "ask for labels" and bool(
        evidence.askable and evidence.decay and evidence.decay.is_early
    )
    _save_detector(run, champion, decay_check, asked=is_early)
    if drift_after != drift_before:
        _save_drift(run, champion, drift_after)
    urgent = params.urgent_labels if is_early else 0
    asked = ask_for_labels(workspace, champion, window, urgent=urgent) if decision.outcome == "ask for labels" else 0
    asked += draw_standing_lot(workspace, champion)
    trial = registry.running_trial(task.name)
    page = artifact_url(run.url, REPORT)
    return CheckResult(decision, page, len(traffic.recent), decay_check.new, trial.version if trial else None, asked)


def _askable(workspace: Workspace, champion: Version, detector_state: DetectorState, traffic: LogWindow) -> int:
    """Requests that urgent labels may be asked for: none until the last lot of this fall has come, or after all lots."""
    if detector_state.asked >= LOTS or (detector_state.asked and not lot_has_come(workspace, champion)):
        return 0
    return sum(row.label is None for row in traffic.recent)


def _scored(traffic: LogWindow, window: Window) -> list[ScoredRow]:
    """The independent answers with labels that judge, in the order of their labels."""
    return [
        ScoredRow(row, window.score(row.label, row.output), row.weight or 1.0)
        for row in independent(traffic.labelled.all)
        if row.label is not None
    ]


def _require_no_labels(workspace: Workspace, champion: Version, before: DetectorState) -> None:
    """Raises PerpetuneError if an earlier check counted labels of the champion and its answers are gone."""
    if before.labels:
        raise PerpetuneError(
            f"the prediction log has no answer of version {champion.version}, of which {before.labels} labels were "
            "counted before",
            where=redacted(workspace.settings.prediction_log),
            do="set PERPETUNE_DATABASE_URL to the gateway's prediction log, or restore it",
        )


def _check_first_version(workspace: Workspace, run: Run, champion: Version, flow_run_id: str) -> CheckResult | None:
    """Check whether there are enough labels for a first tuned version: a prompted base has no reference to decay from."""
    params = workspace.params
    evidence = first_refresh_evidence(workspace, champion)
    verdict = should_tune_first_version(evidence, params.watch, params.refresh)
    log = open_log(workspace.settings.prediction_log)
    try:
        recent = recent_predictions(
            log, champion.task, version=champion.version, limit=params.watch.window, rule=label_rule(workspace)
        )
    finally:
        log.dispose()
    if not recent and verdict.outcome in ("ask for labels", "collect more labels"):
        return None
    ids = _ids(workspace, run, champion, flow_run_id)
    decision = record(verdict, evidence, task=champion.task, time=datetime.now(UTC), ids=ids)
    log_decision(workspace, run, decision)
    asked = 0
    if decision.outcome == "ask for labels":
        # All at random: its confidence says little, and uncertain requests are not added to the holdouts.
        asked = ask_for_labels(workspace, champion, Window(recent, (), {}, params.task.kind), random_ratio=1.0)
    trial = registry.running_trial(champion.task)
    return CheckResult(decision, None, len(recent), evidence.labelled, trial.version if trial else None, asked)


def _ids(workspace: Workspace, run: Run, champion: Version, flow_run_id: str) -> Ids:
    return Ids(
        run_id=run.id,
        model_version=champion.version,
        champion_version=champion.version,
        data_version=champion.tags.get("data.version"),
        git_commit=git_commit(workspace.root),
        base_digest=champion.tags.get("base.digest"),
        adapter_digest=champion.tags.get("adapter.digest"),
        prefect_flow_run_id=flow_run_id,
        params_sha256=params_digest(workspace),
    )


def _metric(workspace: Workspace) -> str:
    return deciding_scoring(workspace.params).main


def _by_cost(workspace: Workspace, reference: Sequence[RecordedAnswer]) -> WatchParams:
    """The settings of the monitor; with `promote.costs` the margin is at most what the champion's mistakes cost."""
    rules = workspace.params.watch
    if workspace.params.promote.costs is None:
        return rules
    mean = sum(row.score for row in reference) / len(reference)
    return rules.model_copy(update={"margin": margin_by_cost(rules.margin, mean)})


def _scored_by(workspace: Workspace) -> str:
    """Names the score that the detector counts: "", or a digest of the costs."""
    costs = workspace.params.promote.costs
    return "" if costs is None else hashlib.sha256(json.dumps(costs, sort_keys=True).encode()).hexdigest()[:16]


def _rollback_evidence(
    workspace: Workspace,
    champion: Version,
    decay_check: DecayCheck,
    verdict: Verdict,
    traffic: LogWindow,
    window: Window,
    folder: Path,
) -> RollbackEvidence | None:
    """The evidence on going back if the champion decayed; the previous one is asked the same inputs if it came early.

    Cooldown, budget and missing labels do not delay a rollback.
    """
    decay, alarmed_by = decay_check.decay, decay_check.detector_state.alarmed_by
    due = ("retrain", "cooling down", "over budget", "collect more labels")
    if decay is None or alarmed_by is None or not decay.alarms or verdict.outcome not in due:
        return None
    previous = registry.find(champion.task, "previous")
    usable = previous is not None and previous.version != champion.version
    if previous is not None and previous.tags.get("release.state") == "rolled back":
        usable = False
    promoted_beside = scored_by_cost(workspace, answers(champion.run_id, "champion", folder))
    known = reference_scores(promoted_beside, workspace.params.reference)
    evidence = RollbackEvidence(
        decay=decay,
        alarmed_by=alarmed_by,
        window=workspace.params.watch.window,
        previous=previous.version if previous is not None and usable else None,
        previous_score=sum(known) / len(known) if known else None,
        metric=_metric(workspace),
        unasked=traffic.trusted(workspace),
    )
    if evidence.previous is None or alarmed_by > evidence.window:
        return evidence
    return _with_replay(workspace, evidence, evidence.previous, traffic, window)


def _with_replay(
    workspace: Workspace, evidence: RollbackEvidence, previous: str, traffic: LogWindow, window: Window
) -> RollbackEvidence:
    """The evidence with the previous version's answers to the same inputs, or why it could not be asked."""
    try:
        return replace(evidence, replay=replay(gateway_of(workspace), previous, traffic.last, window.score))
    except NoGateway:
        why = "no gateway runs"
    except PerpetuneError as fault:
        why = fault.what
    return replace(evidence, not_asked=why)


def _read_log(workspace: Workspace, champion: Version, until: int) -> LogWindow:
    task, limit, version = workspace.params.task.name, workspace.params.watch.window, champion.version
    rule = label_rule(workspace)
    log = open_log(workspace.settings.prediction_log)
    try:
        recent = predictions_of_a_day(log, task, version, limit, rule)
        unasked = unasked_labels(workspace, log, rule, version)
        at_once = workspace.params.watch.unasked == "trust"
        admit(log, task, version, datetime.now(UTC), rule, unasked=unasked.decides, at_once=at_once)
        new, number = newly_admitted(log, task, version, until, rule=rule)
        before, _ = newly_admitted(log, task, version, 0, newest=HISTORY + len(new), rule=rule)
        labelled = LabelledRows(new, before[: len(before) - len(new)], number)
        last = labelled.all[-limit:]
        return LogWindow(recent, labelled, last, counts(log, task, rule).labelled, unasked)
    finally:
        log.dispose()


def _save_detector(run: Run, champion: Version, decay_check: DecayCheck, *, asked: bool) -> None:
    """Save the detector's state, after the decision: a check killed earlier reads the same labels again."""
    if decay_check.new and decay_check.detector_state.until:
        detector_state = decay_check.detector_state
        kept = {DETECTOR: to_text(replace(detector_state, asked=detector_state.asked + asked))}
        registry.tag_version(champion.task, champion.version, kept)
        tag(run, kept)


def _save_drift(run: Run, champion: Version, state: DriftState) -> None:
    """Save the budget of false alarms after the decision: a check killed earlier tests the same requests again."""
    kept = {DRIFT: drift_text(state)}
    registry.tag_version(champion.task, champion.version, kept)
    tag(run, kept)


def _metrics(evidence: RetrainEvidence, rows: int) -> dict[str, float]:
    metrics = {
        "window/rows": float(rows),
        "window/labelled": float(evidence.labelled),
        "decay/labels": float(evidence.labelled_in_all),
        "decay/alarms_in_a_row": float(evidence.alarms_in_a_row),
        "refreshes/unsuccessful": float(evidence.unsuccessful_refreshes),
        "refreshes/device_hours": evidence.device_hours,
    }
    if evidence.drift is not None:
        metrics["window/drifted_ratio"] = evidence.drift.share
        if evidence.drift.inputs is not None:
            metrics["window/inputs_auc"] = evidence.drift.inputs.auc
            metrics["window/inputs_p"] = evidence.drift.inputs.p_value
    if evidence.estimate is not None:
        metrics |= {
            "window/estimated_score": evidence.estimate.window.mean,
            "reference/estimated_score": evidence.estimate.reference.mean,
            "window/estimated_fall": evidence.estimate.fall,
            "window/estimated_fall_low": evidence.estimate.interval.low,
            "window/estimated_fall_high": evidence.estimate.interval.high,
        }
        if evidence.estimate.error is not None:
            metrics["window/estimate_error"] = evidence.estimate.error.error
            metrics["window/corrected_score"] = evidence.estimate.error.corrected.mean
        for each in (evidence.estimate, *evidence.other_estimates.values()):
            metrics |= _estimate_metrics(each)
    if evidence.decay is not None:
        decay = evidence.decay
        metrics |= {
            "window/score": decay.window.mean,
            "window/drop": decay.drop,
            "window/drop_low": decay.interval.low,
            "window/drop_high": decay.interval.high,
            "reference/score": decay.reference.mean,
            "decay/score": decay.since_release.mean,
            "decay/score_low": decay.since_release.interval.low,
            "decay/score_high": decay.since_release.interval.high,
            "decay/bound": decay.bound,
            "decay/evidence": decay.evidence,
        }
    return metrics


def _estimate_metrics(estimate: EstimatedFall) -> dict[str, float]:
    """As estimate/judge/score, with its error and the interval of that if labels tell it."""
    found = {"score": estimate.window.mean, "rows": float(estimate.window.rows)}
    if estimate.error is not None:
        error = estimate.error
        found |= {"error": error.error, "error_low": error.interval.low, "error_high": error.interval.high}
        found |= {"labels": float(error.labels)}
    return {f"estimate/{estimate.method}/{name}": value for name, value in found.items()}

"""The watch: judge the newest traffic against the reference, and say whether the champion has decayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from perpetune.curation.layout import REFERENCE
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.loop.first_version import is_first
from perpetune.loop.run_context import git_commit, log_decision, params_digest
from perpetune.loop.watch.first_refresh import first_refresh_evidence
from perpetune.loop.watch.label_requests import ask_for_labels
from perpetune.loop.watch.refresh_history import refreshes_before
from perpetune.monitoring.decay import held_to, measure_decay, promised_by
from perpetune.monitoring.detector_state import DETECTOR, DetectorState, from_text, judge, to_text, with_bound
from perpetune.monitoring.drift import drift_report
from perpetune.monitoring.estimated_accuracy import estimate_fall
from perpetune.monitoring.window import Window
from perpetune.params import ReferenceParams, WatchParams
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.first_refresh import should_tune
from perpetune.policy.label_requests import decide_without_labels
from perpetune.policy.retraining import Decay, RetrainEvidence, should_retrain
from perpetune.policy.rollout import RollbackEvidence, should_roll_back
from perpetune.policy.verdict import Verdict
from perpetune.prediction_log.log import counts, newly_labelled, open_log, recent_predictions
from perpetune.records import Example, Prediction, Recorded, read_jsonl
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import Run, artifact, log_file, log_metrics, tag
from perpetune.workspace import Workspace

REPORT = "drift.html"


@dataclass(frozen=True)
class CheckResult:
    """What one look saw and decided. `page` is the drift report's address in MLflow, None without a report.

    `trial` is the version on trial. `asked` labels were asked for.
    """

    decision: Decision
    page: str | None
    rows: int
    labelled: int
    trial: str | None = None
    asked: int = 0


@dataclass(frozen=True)
class DecayCheck:
    """The labels of one look: how many are new, what they leave the next look, and what they show."""

    new: int
    detector_state: DetectorState
    decay: Decay | None


@dataclass(frozen=True)
class LogWindow:
    """From the log: the newest traffic, what was labelled since the last look, up to which feedback, and what was last.

    `labels` counts those of all versions.
    """

    recent: list[Prediction]
    new: list[Prediction]
    until: int
    last: list[Prediction]
    labels: int


def check(workspace: Workspace, run: Run, flow_run_id: str) -> CheckResult | None:
    """Judge the champion's newest predictions; None where there is no champion or no traffic of it yet."""
    params, task = workspace.params.watch, workspace.params.task
    champion = registry.find(task.name, "champion")
    if champion is None:
        return None
    if is_first(champion.run_id):
        return _check_first_version(workspace, run, champion, flow_run_id)
    folder = workspace.run_folder(run.id)
    promised = promised_answers(_recorded(champion.run_id, "challenger", folder), workspace.params.reference)
    before = from_text(champion.tags.get(DETECTOR), held_to([row.score for row in promised], params) or 0.0)
    read = _read_log(workspace, champion, before.until)
    if not read.recent:
        return None
    window = Window(
        read.recent,
        _reference(workspace),
        {row.id: (row.output, row.confidence) for row in newest_answers(champion, folder)},
        task.kind,
        scoring_of(task.kind, task.output_schema).score,
    )
    report = folder / REPORT
    drift = drift_report(window, params, report)
    log_file(run, report)
    judged = _judge(read, window, [row.score for row in promised], before, params)
    refreshes = refreshes_before(champion, workspace.params.refresh.cooldown_minutes)
    evidence = RetrainEvidence(
        labelled=judged.new,
        labelled_in_all=judged.detector_state.labels,
        decay=judged.decay,
        alarms_in_a_row=judged.detector_state.alarms,
        drift=drift,
        minutes_since_refresh=refreshes.minutes_since,
        unsuccessful_refreshes=refreshes.failures,
        device_hours=refreshes.device_hours,
        estimate=estimate_fall((row.confidence for row in read.recent), (row.confidence for row in promised), params),
        labelled_in_window=sum(row.label is not None for row in read.recent),
        labels_since_refresh=None if refreshes.labels is None else read.labels - refreshes.labels,
        metric=_metric(workspace),
    )
    verdict = should_retrain(evidence, params, workspace.params.refresh)
    back = _going_back(workspace, champion, judged, verdict, folder)
    verdict = decide_without_labels(verdict, evidence, params, workspace.params.refresh)
    ids = _ids(workspace, run, champion, flow_run_id)
    decision = record(*(back or (verdict, evidence)), task=task.name, time=datetime.now(UTC), ids=ids)
    log_decision(run, decision)
    log_metrics(run, _metrics(evidence, len(read.recent)))
    _remember(run, champion, judged)
    asked = ask_for_labels(workspace, champion, window) if decision.outcome == "ask for labels" else 0
    trial = registry.wanted(task.name).trial
    page = f"{run.url}/artifacts/{REPORT}"
    return CheckResult(decision, page, len(read.recent), judged.new, trial.version if trial else None, asked)


def _check_first_version(workspace: Workspace, run: Run, champion: Version, flow_run_id: str) -> CheckResult | None:
    """The prompted base has promised nothing that it could fall behind: is there enough to tune a version on?"""
    params = workspace.params
    evidence = first_refresh_evidence(workspace, champion)
    verdict = should_tune(evidence, params.watch, params.refresh)
    log = open_log(workspace.settings.prediction_log)
    try:
        recent = recent_predictions(log, champion.task, version=champion.version, limit=params.watch.window)
    finally:
        log.dispose()
    if not recent and verdict.outcome in ("ask for labels", "collect more labels"):
        return None
    ids = _ids(workspace, run, champion, flow_run_id)
    decision = record(verdict, evidence, task=champion.task, time=datetime.now(UTC), ids=ids)
    log_decision(run, decision)
    asked = 0
    if decision.outcome == "ask for labels":
        # All by chance: its doubts say little, and what is asked in doubt would be missing from the holdouts.
        asked = ask_for_labels(workspace, champion, Window(recent, (), {}, params.task.kind), random_share=1.0)
    trial = registry.wanted(champion.task).trial
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


def _judge(
    read: LogWindow, window: Window, promised: Sequence[float], before: DetectorState, params: WatchParams
) -> DecayCheck:
    """Each label is judged once, in the order in which it became known, against what the champion promised."""

    def scores(rows: Sequence[Prediction]) -> list[float]:
        return [window.score(row.label, row.output) for row in rows if row.label is not None]

    bound, new = held_to(promised, params), scores(read.new)
    if bound is None:
        return DecayCheck(len(new), before, None)
    detector_state = with_bound(before, bound)
    restarted_from = before.detector.bound if detector_state is not before else None
    detector_state = judge(detector_state, new, read.until, params)
    return DecayCheck(
        len(new), detector_state, measure_decay(scores(read.last), promised, detector_state, params, restarted_from)
    )


def _metric(workspace: Workspace) -> str:
    task = workspace.params.task
    return scoring_of(task.kind, task.output_schema).main


def _going_back(
    workspace: Workspace, champion: Version, judged: DecayCheck, verdict: Verdict, folder: Path
) -> tuple[Verdict, RollbackEvidence] | None:
    """The verdict and its evidence where the previous champion is the answer to a decay.

    Neither cooldown nor budget holds it up, nor that labels are waited for.
    """
    decay, alarmed_by = judged.decay, judged.detector_state.alarmed_by
    due = ("retrain", "cooling down", "over budget", "collect more labels")
    if decay is None or alarmed_by is None or not decay.alarms or verdict.outcome not in due:
        return None
    previous = registry.find(champion.task, "previous")
    usable = previous is not None and previous.version != champion.version
    if previous is not None and previous.tags.get("release.state") == "rolled back":
        usable = False
    known = promised_scores(_recorded(champion.run_id, "champion", folder), workspace.params.reference)
    found = RollbackEvidence(
        decay=decay,
        alarmed_by=alarmed_by,
        window=workspace.params.watch.window,
        previous=previous.version if previous is not None and usable else None,
        previous_score=sum(known) / len(known) if known else None,
        metric=_metric(workspace),
    )
    back = should_roll_back(found)
    return (back, found) if back else None


def _read_log(workspace: Workspace, champion: Version, until: int) -> LogWindow:
    task, limit, version = workspace.params.task.name, workspace.params.watch.window, champion.version
    log = open_log(workspace.settings.prediction_log)
    try:
        recent = recent_predictions(log, task, version=version, limit=limit)
        new, number = newly_labelled(log, task, version, until)
        last, _ = newly_labelled(log, task, version, 0, newest=limit)
        return LogWindow(recent, new, number, last, counts(log, task).labelled)
    finally:
        log.dispose()


def _reference(workspace: Workspace) -> list[Example]:
    return read_jsonl(workspace.root / REFERENCE / "reference.jsonl", Example)


def newest_answers(champion: Version, folder: Path) -> list[Recorded]:
    """What the champion answered to the held-out rows when it was last evaluated, maybe beside a later challenger."""
    run_id, _, system = champion.tags.get("answers", "").partition("/")
    return _recorded(run_id, system, folder)


def promised_answers(promised: Sequence[Recorded], params: ReferenceParams) -> Sequence[Recorded]:
    """What it answered to unseen rows when it was promoted: to the recent holdout alone where that had enough rows.

    Never as it does since: compared with itself, a decayed model has not decayed.
    """
    recent = [row for row in promised if row.holdout == "recent"]
    return promised_by(recent, [row for row in promised if row.holdout != "recent"], params)


def promised_scores(promised: Sequence[Recorded], params: ReferenceParams) -> list[float]:
    """How well it did on them."""
    return [row.score for row in promised_answers(promised, params)]


def _recorded(run_id: str, system: str, folder: Path) -> list[Recorded]:
    path = artifact(run_id, f"answers/{system}.jsonl", folder / run_id) if run_id else None
    return read_jsonl(path, Recorded) if path else []


def _remember(run: Run, champion: Version, judged: DecayCheck) -> None:
    """Written after the decision: a look that is killed before judges the same labels again, from the same state."""
    if judged.new and judged.detector_state.until:
        kept = {DETECTOR: to_text(judged.detector_state)}
        registry.tag_version(champion.task, champion.version, kept)
        tag(run, kept)


def _metrics(evidence: RetrainEvidence, rows: int) -> dict[str, float]:
    metrics = {
        "window/rows": float(rows),
        "window/labelled": float(evidence.labelled),
        "decay/labels": float(evidence.labelled_in_all),
        "decay/alarms_in_a_row": float(evidence.alarms_in_a_row),
        "refreshes/vain": float(evidence.unsuccessful_refreshes),
        "refreshes/device_hours": evidence.device_hours,
    }
    if evidence.drift is not None:
        metrics["window/drifted_share"] = evidence.drift.share
    if evidence.estimate is not None:
        metrics |= {
            "window/estimated_score": evidence.estimate.window.mean,
            "reference/estimated_score": evidence.estimate.reference.mean,
            "window/estimated_fall": evidence.estimate.fall,
            "window/estimated_fall_low": evidence.estimate.interval.low,
            "window/estimated_fall_high": evidence.estimate.interval.high,
        }
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

"""The watch: judge the newest traffic against the reference, and say whether the champion has decayed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from perpetune import registry
from perpetune.curation.layout import REFERENCE
from perpetune.decision import Decision, Ids, record
from perpetune.evaluation.text_metrics import token_f1
from perpetune.loop.ask import ask_for_labels
from perpetune.loop.passage import git_commit, log_decision, params_digest
from perpetune.monitoring.decay import measure_decay
from perpetune.monitoring.drift import drift_report
from perpetune.monitoring.estimated import estimate_fall
from perpetune.monitoring.window import Window, exact_match
from perpetune.params import ReferenceParams
from perpetune.policy.asking import decide_without_labels
from perpetune.policy.release import RollbackEvidence, should_roll_back
from perpetune.policy.retraining import RetrainEvidence, should_retrain
from perpetune.policy.verdict import Verdict
from perpetune.records import Example, Prediction, Recorded, read_jsonl
from perpetune.registry import Version
from perpetune.serving.log import newly_labelled, open_log, recent_predictions
from perpetune.tracking import Run, artifact, log_file, log_metrics, newest_run, tag
from perpetune.workspace import Workspace

REPORT = "drift.html"
JUDGED_UNTIL = "perpetune.judged_until"  # the number of the newest feedback that a look has judged


@dataclass(frozen=True)
class Sighting:
    """What one look saw and decided. `page` is the drift report's address in MLflow, `trial` the version on trial.

    `asked` labels were asked for.
    """

    decision: Decision
    page: str
    rows: int
    labelled: int
    trial: str | None = None
    asked: int = 0


def look(workspace: Workspace, run: Run, flow_run_id: str) -> Sighting | None:
    """Judge the champion's newest predictions; None where there is no champion or no traffic of it yet."""
    params, task = workspace.params.watch, workspace.params.task
    champion = registry.find(task.name, "champion")
    if champion is None:
        return None
    predictions, labelled, number = _read_log(workspace, champion)
    if not predictions:
        return None
    folder = workspace.run_folder(run.id)
    window = Window(
        predictions,
        _reference(workspace),
        {row.id: (row.output, row.confidence) for row in newest_answers(champion, folder)},
        task.kind,
        exact_match if task.kind == "classification" else token_f1,
    )
    report = folder / REPORT
    drift = drift_report(window, params, report)
    log_file(run, report)
    scores = [window.score(row.output, row.label) for row in labelled if row.label is not None]
    promised = promised_answers(_recorded(champion.run_id, "challenger", folder), workspace.params.reference)
    evidence = RetrainEvidence(
        labelled=len(scores),
        decay=measure_decay(scores, [row.score for row in promised], params),
        drift=drift,
        minutes_since_refresh=_minutes_since_refresh(task.name),
        estimate=estimate_fall((row.confidence for row in predictions), (row.confidence for row in promised), params),
        labelled_in_window=sum(row.label is not None for row in predictions),
    )
    verdict = should_retrain(evidence, params, workspace.params.refresh.cooldown_minutes)
    back = _going_back(workspace, champion, evidence, verdict, folder)
    judged = back[0] if back else verdict
    verdict = decide_without_labels(verdict, evidence, params, workspace.params.refresh.cooldown_minutes)
    ids = Ids(
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
    decision = record(*(back or (verdict, evidence)), task=task.name, time=datetime.now(UTC), ids=ids)
    log_decision(run, decision)
    log_metrics(run, _metrics(evidence, len(predictions)))
    _remember(run, champion, judged, number)
    asked = ask_for_labels(workspace, champion, window) if decision.outcome == "ask for labels" else 0
    trial = registry.wanted(task.name).trial
    page = f"{run.url}/artifacts/{REPORT}"
    return Sighting(decision, page, len(predictions), len(scores), trial.version if trial else None, asked)


def _going_back(
    workspace: Workspace, champion: Version, evidence: RetrainEvidence, verdict: Verdict, folder: Path
) -> tuple[Verdict, RollbackEvidence] | None:
    """The verdict and its evidence where the previous champion is the answer to a decay. No cooldown holds it up."""
    decay = evidence.decay
    if decay is None or verdict.outcome not in ("retrain", "cooling down"):
        return None
    previous = registry.find(champion.task, "previous")
    usable = previous is not None and previous.version != champion.version
    if previous is not None and previous.tags.get("release.state") == "rolled back":
        usable = False
    known = promised_scores(_recorded(champion.run_id, "champion", folder), workspace.params.reference)
    found = RollbackEvidence(
        decay=decay,
        earlier_looks=1 if JUDGED_UNTIL in champion.tags else 0,
        previous=previous.version if previous is not None and usable else None,
        previous_score=sum(known) / len(known) if known else None,
    )
    back = should_roll_back(found)
    return (back, found) if back else None


def _read_log(workspace: Workspace, champion: Version) -> tuple[list[Prediction], list[Prediction], int]:
    """The newest traffic, and what was labelled since the last look that judged: no label is judged twice."""
    task, limit = workspace.params.task.name, workspace.params.watch.window
    log = open_log(workspace.settings.prediction_log)
    try:
        recent = recent_predictions(log, task, version=champion.version, limit=limit)
        judged = int(champion.tags.get(JUDGED_UNTIL, "0"))
        return recent, *newly_labelled(log, task, champion.version, judged)
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
    return recent if len(recent) >= params.min_recent else promised


def promised_scores(promised: Sequence[Recorded], params: ReferenceParams) -> list[float]:
    """How well it did on them."""
    return [row.score for row in promised_answers(promised, params)]


def _recorded(run_id: str, system: str, folder: Path) -> list[Recorded]:
    path = artifact(run_id, f"answers/{system}.jsonl", folder / run_id) if run_id else None
    return read_jsonl(path, Recorded) if path else []


def _remember(run: Run, champion: Version, judged: Verdict, number: int) -> None:
    if judged.outcome in ("keep", "retrain", "roll back"):
        registry.tag_version(champion.task, champion.version, {JUDGED_UNTIL: str(number)})
        tag(run, {JUDGED_UNTIL: str(number)})


def _minutes_since_refresh(task: str) -> float | None:
    found = newest_run(task, "refresh")
    return (time.time() - found[1]) / 60 if found else None


def _metrics(evidence: RetrainEvidence, rows: int) -> dict[str, float]:
    metrics = {"window/rows": float(rows), "window/labelled": float(evidence.labelled)}
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
        metrics |= {
            "window/score": evidence.decay.window.mean,
            "reference/score": evidence.decay.reference.mean,
            "window/drop": evidence.decay.drop,
            "window/drop_low": evidence.decay.interval.low,
            "window/drop_high": evidence.decay.interval.high,
            "window/p_value": evidence.decay.p_value,
        }
    return metrics

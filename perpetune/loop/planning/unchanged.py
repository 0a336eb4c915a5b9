"""Whether a refresh would only repeat the last one: gathers data, settings and labels from MLflow and the workspace."""

from __future__ import annotations

from datetime import UTC, datetime

from perpetune.loop.curate import LABELS, SPLIT_NAMES, CuratedData, rows_metric
from perpetune.loop.run_context import RECORD, environment_tags, settings_of, use_mlflow
from perpetune.loop.watch.refresh_history import refreshes_before
from perpetune.model.release import UNTRAINED
from perpetune.params.renamed_settings import flat_with_new_names
from perpetune.policy.decision.record import Decision
from perpetune.policy.unchanged import LastRefresh, NewData, Trigger, nothing_new
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import counts
from perpetune.tracking import registry
from perpetune.tracking.runs import RunRecord, artifact, as_params, newest_run, read_run
from perpetune.workspace import Workspace

VERSION_TAGS = ("perpetune.version", "torch.version")


def why_unchanged(workspace: Workspace, curated: CuratedData, trigger: Trigger) -> str | None:
    """Why a refresh on this data would only repeat the last one, in a sentence; None if it would not."""
    use_mlflow(workspace)
    params, task = workspace.params.refresh, workspace.params.task.name
    champion = registry.find(task, "champion")
    unsuccessful = refreshes_before(champion, params.cooldown_minutes).failures if champion else 0
    now = NewData(curated.version, sum(curated.rows.values()), curated.labels, _deciding(workspace, curated, champion))
    return nothing_new(_last_refresh(workspace), now, trigger, unsuccessful, params, workspace.params.promote)


def _deciding(workspace: Workspace, curated: CuratedData, champion: registry.Version | None) -> int | None:
    """Rows that could show a gain over the champion; None if what serves was never trained: that needs few."""
    if champion is None or champion.tags.get(registry.SYSTEM) in UNTRAINED:
        return None
    recent = curated.rows.get("recent", 0)
    if not workspace.params.promote.disagreement_labels:
        return recent
    log = open_log(workspace.settings.prediction_log)
    try:
        answers = counts(log, workspace.params.task.name).predictions
    finally:
        log.dispose()
    return recent + max(answers - curated.labels, 0)


def _last_refresh(workspace: Workspace) -> LastRefresh | None:
    task = workspace.params.task.name
    found = newest_run(task, "refresh")
    if found is None:
        return None
    run, ended = found
    path = artifact(run.id, RECORD, workspace.run_folder(run.id))
    if path is None:
        return None
    decision, record = Decision.from_json(path.read_text(encoding="utf-8")), read_run(run.id)
    return LastRefresh(
        ended=datetime.fromtimestamp(ended, UTC),
        outcome=decision.outcome,
        data_version=decision.ids.data_version or "",
        rows=sum(int(record.metrics.get(rows_metric(name), 0)) for name in SPLIT_NAMES),
        labels=int(record.metrics.get(LABELS, 0)),
        same_settings=_same_settings(workspace, record),
        still_valid=_still_valid(task, decision),
    )


def _same_settings(workspace: Workspace, record: RunRecord) -> bool:
    """Whether versions and settings are equal. The git commit is ignored: it changes with every committed `dvc.lock`."""
    here = environment_tags()
    same_versions = all(record.tags.get(name) == here[name] for name in VERSION_TAGS)
    recorded = flat_with_new_names(record.params).items()
    return same_versions and as_params(settings_of(workspace, "refresh")).items() <= recorded


def _still_valid(task: str, decision: Decision) -> bool:
    """Whether the champion is still the version that the decision promoted or compared with."""
    champion = registry.find(task, "champion")
    version = champion.version if champion else None
    return version in (decision.ids.model_version, decision.ids.champion_version)

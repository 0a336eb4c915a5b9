"""The MLflow run of a refresh or a check: its tags, parameters and decision record.

An interrupted refresh is resumed in its own run by the next one that does the same work: see
docs/decisions/0005-a-broken-refresh-goes-on-in-its-run.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from perpetune.errors import PerpetuneError
from perpetune.git import git, is_in_repository
from perpetune.loop.audited import audit_decision
from perpetune.output_schema import to_text
from perpetune.params import as_yaml
from perpetune.params.renamed_settings import flat_with_new_names
from perpetune.policy.decision.headline import headline
from perpetune.policy.decision.record import Decision, Ids
from perpetune.tracking import registry
from perpetune.tracking.alias_moves import complete_move
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import (
    Run,
    UnfinishedRun,
    as_params,
    connect,
    find_run,
    log_file,
    log_text,
    mark_killed,
    open_run,
    reopen_run,
    tag,
    unfinished_runs,
)
from perpetune.workspace import Workspace

Kind = Literal["refresh", "watch"]
TRIGGER = "perpetune.trigger"  # tag
RECORD = "decision.json"
RESOLVED = "resolved-params.yaml"
REPORT = "evaluation.html"
ECONOMICS = "economics.json"
LOSS = "train/loss"
DEVICE_HOURS = "train/device_hours"
LATER = "decisions"  # artifact folder for decisions on a version after its own run


def open_loop_run(
    workspace: Workspace, kind: Kind, trigger: str, reason: str, flow_run_id: str, data_version: str | None = None
) -> Run:
    """Connect to MLflow and start a run with the settings and origin of this flow run, or resume an interrupted one.

    Raises PerpetuneError if MLFLOW_TRACKING_URI is not set or the server does not answer.
    """
    use_mlflow(workspace)
    task = workspace.params.task.name
    complete_move(task)  # a killed process may have left one
    origin = {
        "perpetune.kind": kind,
        TRIGGER: trigger,
        "perpetune.reason": reason,
        "prefect.flow_run_id": flow_run_id,
        "git.commit": git_commit(workspace.root),
        **environment_tags(),
        "mlflow.note.content": f"{kind.capitalize()}, {trigger}: {reason}",
    }
    settings = settings_of(workspace, kind) | ({"data.version": data_version} if data_version else {})
    unfinished = unfinished_runs(task, kind)
    interrupted = _resumable(workspace, kind, flow_run_id, settings, unfinished)
    if interrupted is not None:
        run = reopen_run(interrupted, origin)
    else:
        run = open_run(task, f"{kind} {datetime.now(UTC):%Y-%m-%d %H:%M} ({trigger})", origin, settings)
    _end_other_runs(run, workspace, unfinished)
    workspace.run_folder(run.id)
    log_params_files(run, workspace)
    return run


def _resumable(
    workspace: Workspace,
    kind: Kind,
    flow_run_id: str,
    settings: Mapping[str, object],
    unfinished: Sequence[UnfinishedRun],
) -> Run | None:
    """The interrupted run to resume: that of the same flow run, else the newest with the same settings; None for none.

    A refresh resumes any run that this workspace started, because checkpoint and files are here. A check is resumed
    only by the same flow run, because a new one reads newer traffic. A run with a decision is never resumed.
    """
    same = _undecided(unfinished, settings)
    retried = [each for each in same if each.tags.get("prefect.flow_run_id") == flow_run_id]
    here = [each for each in same if kind == "refresh" and workspace.has_run_folder(each.run.id)]
    return next((each.run for each in [*retried, *here]), None)


def log_params_files(run: Run, workspace: Workspace) -> None:
    """Log params.yaml as written, and every setting with its value: defaults may change with a later release."""
    log_file(run, workspace.root / "params.yaml")
    log_text(run, as_yaml(workspace.params), RESOLVED)


def _undecided(unfinished: Sequence[UnfinishedRun], settings: Mapping[str, object]) -> list[UnfinishedRun]:
    wanted = as_params(settings).items()
    return [
        each
        for each in unfinished
        if "decision" not in each.tags and wanted <= flat_with_new_names(each.params).items()
    ]


def _end_other_runs(run: Run, workspace: Workspace, unfinished: Sequence[UnfinishedRun]) -> None:
    """End other runs that are marked as running: only one runs at a time, so their processes were killed."""
    for each in unfinished:
        if each.running and each.run.id != run.id and workspace.has_run_folder(each.run.id):
            mark_killed(each.run)


def data_version_of(workspace: Workspace, flow_run_id: str) -> str | None:
    """The data version that this flow run began to train on with these settings; None before the first training step.

    Until then the data may change, because the failure may have been in the data.
    """
    use_mlflow(workspace)
    unfinished = unfinished_runs(workspace.params.task.name, "refresh")
    for each in _undecided(unfinished, settings_of(workspace, "refresh")):
        retried = each.tags.get("prefect.flow_run_id") == flow_run_id
        curve = workspace.curve(each.run.id)
        if retried and curve.is_file() and curve.stat().st_size:
            return each.params.get("data.version")
    return None


def use_mlflow(workspace: Workspace) -> None:
    uri = workspace.settings.mlflow_tracking_uri
    if uri is None:
        raise PerpetuneError(
            "the address of the MLflow server is not set",
            where="MLFLOW_TRACKING_URI",
            do="start one with `perpetune up`, or set the variable",
        )
    connect(uri)


def settings_of(workspace: Workspace, kind: Kind | Literal["tune"]) -> dict[str, object]:
    """The sections of params.yaml that a refresh, a check or a tuning depends on, with flat dotted keys."""
    sections = {
        "refresh": ("task", "base", "clean", "split", "mix", "train", "evaluate", "economics", "promote"),
        "watch": ("watch", "refresh"),
        "tune": ("task", "base", "clean", "split", "mix", "train", "tune"),
    }[kind]
    values = workspace.params.model_dump(mode="json", include=set(sections))
    if schema := workspace.params.task.output_schema:
        values.get("task", {}).update(output_schema=to_text(schema))  # MLflow rejects many key names of a schema
    promote = values.get("promote", {})
    promote.update({name: json.dumps(promote[name]) for name in ("costs", "recall_floors") if promote.get(name)})
    return dict(_flat(values))


def _flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat


def params_digest(workspace: Workspace) -> str:
    return hashlib.sha256((workspace.root / "params.yaml").read_bytes()).hexdigest()


def environment_tags() -> dict[str, str]:
    """Tags with the versions and the machine on which exact numbers depend."""
    return {
        "perpetune.version": metadata.version("perpetune"),
        "torch.version": metadata.version("torch"),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def git_commit(folder: Path) -> str:
    """The workspace's commit, with "+" if there are uncommitted changes; "unknown" outside git.

    If there is a repository and git does not tell, a line on stderr says why, once.
    """
    try:
        commit = git(folder, "rev-parse", "HEAD")
        return commit + ("+" if git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except PerpetuneError as fault:
        if is_in_repository(folder):
            _say_once(f"the commit is unknown, and versions will not name one: {fault}")
        return "unknown"


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)  # Prefect takes it into the log of a run


def ids_of(workspace: Workspace, version: Version, champion: str | None) -> Ids:
    """The ids of a decision on a version after its own run; `champion` is the version that serves now."""
    return Ids(
        run_id=version.run_id,
        model_version=version.version,
        champion_version=champion,
        data_version=version.tags.get("data.version"),
        git_commit=git_commit(workspace.root),
        base_digest=version.tags.get("base.digest"),
        adapter_digest=version.tags.get("adapter.digest"),
        params_sha256=params_digest(workspace),
    )


def log_decision(workspace: Workspace, run: Run, decision: Decision) -> None:
    """Log the record of the decision to the run, then the decision to the audit log, then tag the run.

    From the entry in the audit log on it is decided: a record without one is a draft, which the next decision replaces.
    """
    log_text(run, decision.to_json(), RECORD)
    audit_decision(workspace, decision)
    tag_decision(run, decision)


def tag_decision(run: Run, decision: Decision) -> None:
    tag(run, {"decision": decision.outcome, "decision.reason": decision.reason, "decision.line": headline(decision)})


def log_later_decision(workspace: Workspace, decision: Decision, version: Version) -> None:
    """Log a decision made after a version's own run to that run and to the audit log, and tag and describe the version."""
    name = f"{LATER}/{decision.time:%Y%m%dT%H%M%S%f}-{decision.kind.replace(' ', '-')}.json"
    log_text(find_run(version.run_id), decision.to_json(), name)
    audit_decision(workspace, decision)
    tags = {"decision.reason": decision.reason, "decision.line": headline(decision), "decision": decision.outcome}
    registry.tag_version(version.task, version.version, tags)
    registry.describe_version(version.task, version.version, f"{decision.outcome}: {' '.join(decision.reasons)}")

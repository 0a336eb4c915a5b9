"""The MLflow run of one pass: where it comes from and what it was asked for.

A pass that was broken off is gone on with in its own run, by the next one that does the same work: see
docs/decisions/0005-a-broken-pass-goes-on-in-its-run.md.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from perpetune.errors import PerpetuneError
from perpetune.output_schema import to_text
from perpetune.policy.decision.headline import headline
from perpetune.policy.decision.record import Decision, Ids
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import (
    Run,
    Unfinished,
    as_params,
    connect,
    find_run,
    give_up_run,
    log_file,
    log_text,
    open_run,
    reopen_run,
    tag,
    unfinished_runs,
)
from perpetune.workspace import Workspace

Kind = Literal["refresh", "watch"]
RECORD = "decision.json"
REPORT = "evaluation.html"
ECONOMICS = "economics.json"
LOSS = "train/loss"
DEVICE_HOURS = "train/device_hours"
LATER = "decisions"  # the folder of a version's run that holds what was decided on it afterwards


def open_loop_run(
    workspace: Workspace, kind: Kind, trigger: str, reason: str, flow_run_id: str, data_version: str | None = None
) -> Run:
    """Connect to MLflow and begin the run of this pass, with its settings and origin, or go on in a broken one.

    Raises PerpetuneError where no MLflow server is known or it does not answer.
    """
    use_mlflow(workspace)
    task = workspace.params.task.name
    origin = {
        "perpetune.kind": kind,
        "perpetune.trigger": trigger,
        "perpetune.reason": reason,
        "prefect.flow_run_id": flow_run_id,
        "git.commit": git_commit(workspace.root),
        **surroundings(),
        "mlflow.note.content": f"{kind.capitalize()}, {trigger}: {reason}",
    }
    settings = settings_of(workspace, kind) | ({"data.version": data_version} if data_version else {})
    unfinished = unfinished_runs(task, kind)
    broken = _the_same_work(workspace, kind, flow_run_id, settings, unfinished)
    if broken is not None:
        run = reopen_run(broken, origin)
    else:
        run = open_run(task, f"{kind} {datetime.now(UTC):%Y-%m-%d %H:%M} ({trigger})", origin, settings)
    _give_up_all_but(run, workspace, unfinished)
    workspace.run_folder(run.id)
    log_file(run, workspace.root / "params.yaml")
    return run


def _the_same_work(
    workspace: Workspace,
    kind: Kind,
    flow_run_id: str,
    settings: Mapping[str, object],
    unfinished: Sequence[Unfinished],
) -> Run | None:
    """The run whose work this pass would only repeat: its flow run's own, else the newest.

    A refresh goes on in any that this workspace began: its checkpoint and its files are here. A look is gone on
    with only by its own flow run, since each new one has newer traffic to judge. A run that holds a decision
    keeps it: it is evidence, and its version may serve already.
    """
    same = _undecided(unfinished, settings)
    own = [each for each in same if each.tags.get("prefect.flow_run_id") == flow_run_id]
    here = [each for each in same if kind == "refresh" and workspace.has_run_folder(each.run.id)]
    return next((each.run for each in [*own, *here]), None)


def _undecided(unfinished: Sequence[Unfinished], settings: Mapping[str, object]) -> list[Unfinished]:
    wanted = as_params(settings).items()
    return [each for each in unfinished if "decision" not in each.tags and wanted <= each.params.items()]


def _give_up_all_but(run: Run, workspace: Workspace, unfinished: Sequence[Unfinished]) -> None:
    """Only one pass of a kind runs at a time, so what else is said to be running here was killed."""
    for each in unfinished:
        if each.running and each.run.id != run.id and workspace.has_run_folder(each.run.id):
            give_up_run(each.run)


def data_of(workspace: Workspace, flow_run_id: str) -> str | None:
    """The version of the data that this flow run has begun to train on with these settings, or None.

    Before the first step there is nothing to keep the data for, and what failed may be mended in the data.
    """
    use_mlflow(workspace)
    unfinished = unfinished_runs(workspace.params.task.name, "refresh")
    for each in _undecided(unfinished, settings_of(workspace, "refresh")):
        own = each.tags.get("prefect.flow_run_id") == flow_run_id
        curve = workspace.curve(each.run.id)
        if own and curve.is_file() and curve.stat().st_size:
            return each.params.get("data.version")
    return None


def use_mlflow(workspace: Workspace) -> None:
    uri = workspace.settings.mlflow_tracking_uri
    if uri is None:
        raise PerpetuneError(
            "no MLflow server is known",
            where="MLFLOW_TRACKING_URI",
            do="start one with `perpetune up`, or set its address",
        )
    connect(uri)


def settings_of(workspace: Workspace, kind: Kind | Literal["tune"]) -> dict[str, object]:
    """The sections of params.yaml that this kind of pass, or a search for better settings, obeys, flat."""
    sections = {
        "refresh": ("task", "base", "clean", "split", "mix", "train", "evaluate", "economics", "promote"),
        "watch": ("watch", "refresh"),
        "tune": ("task", "base", "clean", "split", "mix", "train", "tune"),
    }[kind]
    values = workspace.params.model_dump(mode="json", include=set(sections))
    if schema := workspace.params.task.output_schema:
        values.get("task", {}).update(output_schema=to_text(schema))  # MLflow takes few of the names in a schema
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


def surroundings() -> dict[str, str]:
    """The programs and the machine that figures may depend on to the last bit."""
    return {
        "perpetune.version": metadata.version("perpetune"),
        "torch.version": metadata.version("torch"),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def git_commit(folder: Path) -> str:
    """The commit that the workspace is at, "+" for uncommitted changes; "unknown" outside git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ids_of(workspace: Workspace, version: Version, champion: str | None) -> Ids:
    """The ids of what was decided on a version after its own run; `champion` serves now."""
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


def log_decision(run: Run, decision: Decision) -> None:
    """Log the decision record."""
    log_text(run, decision.to_json(), RECORD)
    tag(run, {"decision": decision.outcome, "decision.reason": decision.reason, "decision.line": headline(decision)})


def file_decision(decision: Decision, version: Version) -> None:
    """Log with a version's run what was decided on it afterwards, and say so on its page."""
    name = f"{LATER}/{decision.time:%Y%m%dT%H%M%S%f}-{decision.kind.replace(' ', '-')}.json"
    log_text(find_run(version.run_id), decision.to_json(), name)
    tags = {
        "decision": decision.outcome,
        "decision.reason": decision.reason,
        "decision.line": headline(decision),
    }
    registry.tag_version(version.task, version.version, tags)
    registry.describe_version(version.task, version.version, f"{decision.outcome}: {' '.join(decision.reasons)}")

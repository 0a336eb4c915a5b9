"""The MLflow run of one pass: where it comes from and what it was asked for."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from perpetune.decision import Decision
from perpetune.errors import PerpetuneError
from perpetune.tracking import Run, connect, log_file, log_text, open_run, tag
from perpetune.workspace import Workspace

Kind = Literal["refresh", "watch"]
RECORD = "decision.json"


def open_passage(workspace: Workspace, kind: Kind, trigger: str, reason: str, flow_run_id: str) -> Run:
    """Connect to MLflow and begin the run of this pass, with its settings and origin.

    Raises PerpetuneError where no MLflow server is known or it does not answer.
    """
    use_mlflow(workspace)
    name = f"{kind} {datetime.now(UTC):%Y-%m-%d %H:%M} ({trigger})"
    run = open_run(
        workspace.params.task.name,
        name,
        {
            "perpetune.kind": kind,
            "perpetune.trigger": trigger,
            "perpetune.reason": reason,
            "prefect.flow_run_id": flow_run_id,
            "git.commit": git_commit(workspace.root),
            "mlflow.note.content": f"{kind.capitalize()}, {trigger}: {reason}",
        },
        settings_of(workspace, kind),
    )
    log_file(run, workspace.root / "params.yaml")
    return run


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
        "refresh": ("task", "base", "clean", "split", "train", "evaluate", "promote"),
        "watch": ("watch", "refresh"),
        "tune": ("task", "base", "clean", "split", "train", "tune"),
    }[kind]
    values = workspace.params.model_dump(mode="json", include=set(sections))
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


def log_decision(run: Run, decision: Decision) -> None:
    """Log the decision record."""
    log_text(run, decision.to_json(), RECORD)
    tag(run, {"decision": decision.outcome, "decision.reason": decision.reason})

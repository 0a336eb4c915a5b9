"""The workspace's repository, its data and its DVC remotes."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta

from perpetune.curation.running.dvc import LOCAL_REMOTE, data_version
from perpetune.doctor.finding import Finding, fault_of
from perpetune.errors import PerpetuneError
from perpetune.git import is_in_repository
from perpetune.runtime.last_backup import last_backup
from perpetune.workspace import Workspace


def repository(workspace: Workspace) -> Finding:
    if shutil.which("git") is None:
        return Finding("git", "warning", "git is not installed, so no version records its code", "install git")
    if not is_in_repository(workspace.root):
        return Finding("git", "warning", f"{workspace.root} is in no git repository", "run `git init`, and commit")
    return Finding("git", "ok", "the workspace is in a git repository")


def pipeline(workspace: Workspace) -> Finding:
    """Whether there is a pipeline, and data that it has curated."""
    if not (workspace.root / "dvc.yaml").is_file():
        return Finding("data", "fault", f"there is no dvc.yaml in {workspace.root}", "run `perpetune init` here")
    try:
        found = data_version(workspace.root)
    except PerpetuneError as error:
        return Finding("data", "warning", error.what, "add examples with `perpetune ingest`, then `perpetune refresh`")
    return Finding("data", "ok", f"data version {found.version[:8]}")


def backup(workspace: Workspace, now: datetime) -> Finding:
    """Whether there is a backup, and how old the last one is. It is not opened."""
    days, last = workspace.params.retention.backup_days, last_backup(workspace.home)
    do = "make one with `perpetune backup create`, and have it made regularly, outside this machine"
    if days is None:
        return Finding("backup", "not checked", "retention.backup_days is null")
    if last is None:
        return Finding("backup", "warning", "no backup was made of this workspace", do)
    what = f"the last one is of {last.time:%Y-%m-%d %H:%M UTC}, in {last.place}"
    if now - last.time > timedelta(days=days):
        return Finding("backup", "warning", f"{what}: older than {days:g} days", do)
    return Finding("backup", "ok", what)


def remotes(workspace: Workspace) -> list[Finding]:
    """Whether each DVC remote answers, and whether one lies on another machine."""
    if not (workspace.root / ".dvc").is_dir():
        return [Finding("DVC remote", "not checked", "DVC is set up by the first refresh")]
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace.root)) as repo:
            names = list(repo.config["remote"])
            found = [_remote(repo, name) for name in names]
    except DvcException as error:
        return [Finding("DVC remote", "fault", str(error), "correct .dvc/config")]
    if not found:
        return [Finding("DVC remote", "warning", "there is none: data is on this disk only", _SET_REMOTE)]
    return found


_SET_REMOTE = "name one in PERPETUNE_DVC_REMOTE, such as s3://bucket/path"


def _remote(repo: object, name: str) -> Finding:
    subject = f"DVC remote {name}"
    try:
        odb = repo.cloud.get_remote(name).odb  # type: ignore[attr-defined]
        odb.fs.exists(odb.path)
    except Exception as error:  # whatever the store's client raises, such as botocore's errors
        return fault_of(
            subject,
            PerpetuneError(
                f"it does not answer: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                do="check its address in .dvc/config and its credentials",
            ),
        )
    if LOCAL_REMOTE.as_posix() in str(odb.path):
        return Finding(subject, "warning", "it is a folder of this workspace: data is on this disk only", _SET_REMOTE)
    return Finding(subject, "ok", f"{odb.fs.unstrip_protocol(odb.path)} answers")

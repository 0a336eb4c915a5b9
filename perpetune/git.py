"""Git commands in a workspace, which may belong to another user: that of a container or of a shared folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from perpetune.errors import PerpetuneError


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command in a folder. Raises PerpetuneError with git's words if it fails or is not installed.

    Git refuses a repository of another user ("dubious ownership"), because the settings in it can name programs. Whoever
    starts perpetune in a workspace runs what is in it anyway, so for this one call the repository counts as safe, without
    a change of anybody's settings, and its file monitor is not started.
    """
    safe = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    try:
        done = subprocess.run(
            ["git", *safe, *arguments], cwd=folder, capture_output=True, encoding="utf-8", errors="replace"
        )
    except OSError as fault:
        raise PerpetuneError("git is not installed", where=str(folder)) from fault
    if done.returncode:
        raise PerpetuneError(done.stderr.strip() or "it failed", where=f"git {arguments[0]} in {folder}")
    return done.stdout.strip()


def is_in_repository(folder: Path) -> bool:
    """Whether a `.git` is in the folder or above it, whatever git itself says."""
    return any((parent / ".git").exists() for parent in (folder.absolute(), *folder.absolute().parents))

"""The code that made a version, checked out beside the present one."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from perpetune.params import TrainParams
from perpetune.training.launch import process_count, torchrun

JOB = "perpetune/training/job.py"
RENAMES = "perpetune/params/renamed_settings.py"


@dataclass(frozen=True)
class Code:
    """Where the code lies; `folder` is None where the present code must do, and `note` says why ("" for no reason)."""

    folder: Path | None
    note: str

    @property
    def has_old_names(self) -> bool:
        """Whether it is older than schema 2 of params.yaml, which renamed settings of training."""
        return self.folder is not None and not (self.folder / RENAMES).is_file()


def check_out(workspace: Path, commit: str, into: Path) -> Code:
    """Clone the workspace's repository at the commit, leaving the repository as it is.

    A commit that ends with "+" had changes which were never committed.
    """
    name = commit.removesuffix("+")
    repository = _git(workspace, "rev-parse", "--show-toplevel")
    if name == "unknown" or repository is None:
        return Code(None, "No commit of its code is on record: the present code trains.")
    if _git(workspace, "cat-file", "-e", f"{name}^{{commit}}") is None:
        return Code(None, f"The repository does not know the commit {name[:12]}: the present code trains.")
    if _git(workspace, "cat-file", "-e", f"{name}:{JOB}") is None:
        return Code(None, f"The commit {name[:12]} holds no code of perpetune: the installed one trains.")
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", repository, str(into)], check=True)
    subprocess.run(["git", "checkout", "--quiet", "--detach", name], cwd=into, check=True)
    lost = commit.endswith("+")
    return Code(into, "Changes that were not committed when it was trained are lost." if lost else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None where it fails or there is none."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def launcher(code: Code, params: TrainParams, launcher: str | None) -> str | None:
    """The command that trains with this code, for `launch`; None where this process may train itself."""
    if code.folder is None:
        return launcher
    count = process_count(params)
    command = shlex.split(launcher) if launcher else torchrun(count) if count > 1 else [sys.executable]
    # Else Python would look into the folder that it was started in first, which may hold the present code.
    return shlex.join(["env", f"PYTHONPATH={code.folder}", "PYTHONSAFEPATH=1", *command])

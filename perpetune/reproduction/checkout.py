"""Check out the code that trained a version."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.git import git
from perpetune.params import TrainParams
from perpetune.training.processes import process_count, torchrun

JOB = "perpetune/training/job.py"
# The other side of a clone does not get the settings of this one.
CLONE = ("clone", "--quiet", "--shared", "--no-checkout", "--upload-pack", "git -c safe.directory=* upload-pack")
RENAMES = "perpetune/params/renamed_settings.py"


@dataclass(frozen=True)
class CodeCheckout:
    """The folder of the code, None for the installed code, and a note about deviations ("" for none)."""

    folder: Path | None
    note: str

    @property
    def has_old_names(self) -> bool:
        """Whether it is older than schema 2 of params.yaml, which renamed settings of training."""
        return self.folder is not None and not (self.folder / RENAMES).is_file()


def check_out(workspace: Path, commit: str, into: Path) -> CodeCheckout:
    """Clone the workspace's repository at the commit into a folder.

    A "+" at the end of the commit stands for uncommitted changes.
    """
    name = commit.removesuffix("+")
    repository = _git(workspace, "rev-parse", "--show-toplevel")
    if name == "unknown" or repository is None:
        return CodeCheckout(None, "The version has no recorded commit: the installed code is used.")
    if _git(workspace, "cat-file", "-e", f"{name}^{{commit}}") is None:
        return CodeCheckout(None, f"The repository does not have the commit {name[:12]}: the installed code is used.")
    if _git(workspace, "cat-file", "-e", f"{name}:{JOB}") is None:
        return CodeCheckout(None, f"The commit {name[:12]} does not contain perpetune: the installed code is used.")
    git(workspace, *CLONE, repository, str(into))
    git(into, "checkout", "--quiet", "--detach", name)
    lost = commit.endswith("+")
    return CodeCheckout(into, "Changes that were not committed at the training are missing." if lost else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command; None if it fails or git is missing."""
    try:
        return git(folder, *arguments)
    except PerpetuneError:
        return None


def training_command(code: CodeCheckout, params: TrainParams, launcher: str | None) -> str | None:
    """The launcher command that trains with this code; None to train in this process."""
    if code.folder is None:
        return launcher
    count = process_count(params)
    command = shlex.split(launcher) if launcher else torchrun(count) if count > 1 else [sys.executable]
    # Otherwise Python would import from the current folder first, which may contain the installed code.
    return shlex.join(["env", f"PYTHONPATH={code.folder}", "PYTHONSAFEPATH=1", *command])

"""Prefect flows: the order of the tasks, and the deployments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import perpetune

# The workspace of a flow run, which Prefect starts outside it: what lies in the working directory would be imported first,
# and a workspace may be a checkout of perpetune, of another version.
RUN_FOLDER = "PERPETUNE_RUN_FOLDER"
OUTSIDE = Path("/")


def _import_from_the_workspace_last() -> None:
    """Undo what Prefect does for flow code in the working directory: ours is installed, and the folder may hold a mlflow/.

    Prefect puts the working directory first on the path of a flow run, and on PYTHONPATH, which the processes of the
    run inherit. It takes the directory away again after the import of a flow, so here it moves to the end.
    """
    here = Path.cwd()
    if Path(perpetune.__file__).parents[1] == here:
        return
    sys.path.sort(key=lambda entry: Path(entry).absolute() == here)
    if "PYTHONPATH" in os.environ:
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if Path(entry).absolute() != here)


def _enter_the_workspace() -> None:
    if folder := os.environ.get(RUN_FOLDER):
        os.chdir(folder)


if os.environ.get("PYTHONSAFEPATH"):
    _import_from_the_workspace_last()
_enter_the_workspace()

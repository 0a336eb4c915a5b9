"""The workspaces whose tasks the gateway of this one serves too, as `perpetune serve add` registers them.

They are in a file of the home, and named by their way from this workspace, so that both may be moved together.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.params import load_params
from perpetune.runtime.served.fitting import require_fitting, require_one_worker
from perpetune.workspace import Workspace

FILE = "served_workspaces.json"
_OTHERS = "tasks"  # of a home that is the same for all workspaces: the folder of those of others


@dataclass(frozen=True)
class Registered:
    """A task, and the folder of its workspace, absolute or from the folder of the serving one."""

    task: str
    folder: str


_FILE_OF: TypeAdapter[tuple[Registered, ...]] = TypeAdapter(tuple[Registered, ...])


def registered(workspace: Workspace) -> tuple[Registered, ...]:
    """What is registered here, in the order in which it was. Raises PerpetuneError if the file is broken."""
    file = workspace.home / FILE
    if not file.is_file():
        return ()
    try:
        return _FILE_OF.validate_json(file.read_bytes())
    except ValidationError:
        raise PerpetuneError(
            "this is no list of workspaces",
            where=str(file),
            do="delete it, and register them again with `perpetune serve add FOLDER`",
        ) from None


def served_workspaces(workspace: Workspace) -> tuple[Workspace, ...]:
    """The registered workspaces, as the gateway of this one serves them.

    Raises PerpetuneError if one is missing or no longer fits.
    """
    found: list[Workspace] = []
    for each in registered(workspace):
        other = _opened(workspace, each.folder)
        if other.params.task.name != each.task:
            raise PerpetuneError(
                f"its task is now called {other.params.task.name}",
                where=str(other.root / "params.yaml"),
                do=f"run `perpetune serve remove {each.task}` and `perpetune serve add {each.folder}`",
            )
        require_fitting(workspace, other, found)
        found.append(other)
    return tuple(found)


def register(workspace: Workspace, folder: Path) -> Workspace:
    """Serve the workspace in `folder` here too. Raises PerpetuneError if it does not fit, is registered already, or
    the gateway here has several workers.
    """
    require_one_worker(workspace.params.serve.workers)
    root = folder.absolute().resolve()
    relative = os.path.relpath(root, workspace.root.resolve())
    other = _opened(workspace, relative)
    require_fitting(workspace, other, served_workspaces(workspace))
    _write(workspace, (*registered(workspace), Registered(other.params.task.name, relative)))
    return other


def unregister(workspace: Workspace, task: str) -> Registered:
    """Serve it here no longer; its workspace stays as it is. Raises PerpetuneError if it is not registered."""
    before = registered(workspace)
    for each in before:
        if each.task == task:
            _write(workspace, tuple(other for other in before if other is not each))
            return each
    names = ", ".join(each.task for each in before) or "none"
    raise PerpetuneError(f"no workspace with the task {task!r} is registered here", do=f"registered: {names}")


def _write(workspace: Workspace, entries: tuple[Registered, ...]) -> None:
    write_atomic(workspace.home / FILE, json.dumps(_FILE_OF.dump_python(entries), indent=2) + "\n")


def _opened(workspace: Workspace, folder: str) -> Workspace:
    """The workspace with the addresses of this one, and a home and log of its own.

    Only a database that the environment names is that of all.
    """
    root = (workspace.root / folder).resolve()
    if not (root / "params.yaml").is_file():
        raise PerpetuneError(
            "there is no workspace: it has no params.yaml",
            where=str(root),
            do="name the folder of a workspace, or forget a registered one with `perpetune serve remove TASK`",
        )
    params, settings = load_params(root / "params.yaml"), workspace.settings
    home = settings.home / _OTHERS / params.task.name if settings.home.is_absolute() else root / settings.home
    own_log = settings.database_url == f"sqlite:///{workspace.home / 'predictions.db'}"  # as `perpetune up` sets it
    changes = {
        "home": home,
        "assets": workspace.assets.absolute(),
        "database_url": None if own_log else settings.database_url,
    }
    return Workspace(root, params, settings.model_copy(update=changes))

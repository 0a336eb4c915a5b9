"""Whether a workspace's task can be served by the engine of another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams
from perpetune.workspace import Workspace

_KEPT_APART = "serve it by a `perpetune up` of its own, or give both the same value"


def require_fitting(serving: Workspace, other: Workspace, others: Sequence[Workspace]) -> None:
    """Raises PerpetuneError if the workspace cannot be served beside the others: by one engine, over one base."""
    file = str(other.root / "params.yaml")
    for each in (serving, *others):
        if each.root.resolve() == other.root.resolve():
            raise PerpetuneError(f"the task {each.params.task.name} is served here already", where=str(other.root))
        if each.params.task.name == other.params.task.name:
            raise PerpetuneError(
                f"a task called {each.params.task.name} is served here already, that of {each.root}",
                where=f"{file}: task.name",
                do="give one of them another name: clients ask for it as their `model`",
            )
    for setting, here, there in _differences(serving, other):
        name = serving.params.task.name
        raise PerpetuneError(
            f"{setting} is {there}, and {here} in {name}, with which it would share one engine",
            where=file,
            do=_KEPT_APART,
        )


def require_one_worker(workers: int) -> None:
    """Raises PerpetuneError if a gateway of several tasks would have several workers."""
    if workers > 1:
        raise PerpetuneError(
            f"several tasks are served by one worker, and {workers} are wanted",
            where="params.yaml: serve.workers",
            do="set serve.workers to 1, or serve one task (see `perpetune serve list`)",
        )


def _differences(serving: Workspace, other: Workspace) -> Iterator[tuple[str, object, object]]:
    """The settings of the engine that differ, with the value of each."""
    one, two = serving.params, other.params
    pairs = {
        "base.model": (one.base.model, two.base.model),
        "base.revision": (one.base.revision, two.base.revision),
        "base.chat_template_kwargs": (one.base.chat_template_kwargs, two.base.chat_template_kwargs),
        "the folder of base.model": (_folder(serving.root, one.base), _folder(other.root, two.base)),
        "serve.engine": (one.serve.engine, two.serve.engine),
        "train.precision": (one.train.precision, two.train.precision),
    }
    for setting, (here, there) in pairs.items():
        if here != there:
            yield setting, here, there


def _folder(root: Path, base: BaseParams) -> Path | None:
    """The folder of a `path:` base, which may be named from where the workspace is."""
    kind, _, name = base.model.partition(":")
    return (root / Path(name).expanduser()).resolve() if kind == "path" else None

"""Every artefact, tag and description that MLflow keeps of a task, for the erasure of texts in them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from perpetune.errors import PerpetuneError

_NO_TEXTS = (".safetensors", ".bin", ".pt", ".gguf", ".npy", ".npz", ".whl", ".png", ".jpg", ".pkl")
_PAGE = 200


@dataclass(frozen=True)
class ArtefactResult:
    """The number of artefacts, and of tags and descriptions, in which something changed."""

    artefacts: int
    tags: int


def clean_mlflow(
    task: str, data: Callable[[bytes], bytes | None], text: Callable[[str], str], *, dry_run: bool
) -> ArtefactResult:
    """Clean what the task's runs, deleted ones too, and its models hold.

    `data` gives the new content of an artefact, or None if it stays; `text` a tag's. Raises PerpetuneError if MLflow or
    its artifact store fails.
    """
    with _plain_errors():
        runs = list(_runs(task))
        places = [run.info.artifact_uri for run in runs]
        places += [model.artifact_location for model in _models(task)]
        changed = sum(_clean_place(uri, data, dry_run=dry_run) for uri in dict.fromkeys(places))
        tags = sum(_clean_tags(run, text, dry_run=dry_run) for run in runs)
        return ArtefactResult(changed, tags + _clean_versions(task, text, dry_run=dry_run))


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as fault:
        raise PerpetuneError(
            f"MLflow may still hold the rows: {fault}",
            do="make it and its artifact store reachable, and run the command again: it goes on where it stopped",
        ) from fault


def _runs(task: str) -> Iterator[Any]:
    client = MlflowClient()
    found = client.get_experiment_by_name(task)
    token = None
    while found is not None:
        page = client.search_runs([found.experiment_id], "", ViewType.ALL, _PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _models(task: str) -> Iterator[Any]:
    client = MlflowClient()
    found = client.get_experiment_by_name(task)
    token = None
    while found is not None:
        page = client.search_logged_models([found.experiment_id], max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _clean_place(uri: str, data: Callable[[bytes], bytes | None], *, dry_run: bool) -> int:
    store: Any = get_artifact_repository(uri)
    changed = 0
    for path in _paths(store, None):
        with tempfile.TemporaryDirectory() as folder:
            local = Path(store.download_artifacts(path, folder))
            new = data(local.read_bytes())
            if new is None:
                continue
            changed += 1
            if not dry_run:
                local.write_bytes(new)
                parent = str(PurePosixPath(path).parent)
                store.log_artifact(str(local), None if parent == "." else parent)
    return changed


def _paths(store: Any, folder: str | None) -> Iterator[str]:
    for each in store.list_artifacts(folder):
        if each.is_dir:
            yield from _paths(store, each.path)
        elif PurePosixPath(each.path).suffix not in _NO_TEXTS:
            yield each.path


def _clean_tags(run: Any, text: Callable[[str], str], *, dry_run: bool) -> int:
    changed = {key: text(value) for key, value in run.data.tags.items() if text(value) != value}
    if not dry_run and run.info.lifecycle_stage == "active":
        for key, value in changed.items():
            MlflowClient().set_tag(run.info.run_id, key, value)
    return len(changed)


def _clean_versions(task: str, text: Callable[[str], str], *, dry_run: bool) -> int:
    client = MlflowClient()
    changed = 0
    for version in client.search_model_versions(f"name = '{task}'"):
        described = version.description or ""
        if text(described) != described:
            changed += 1
            if not dry_run:
                client.update_model_version(task, version.version, text(described))
        for key, value in dict(version.tags).items():
            if text(value) != value:
                changed += 1
                if not dry_run:
                    client.set_model_version_tag(task, version.version, key, text(value))
    return changed

"""Runs that are old, and their deletion with all that MLflow stores for them.

`mlflow gc` does the same for runs in MLflow's trash, on the server's machine; this needs only the server's API. What is left
are the rows of the run in MLflow's database, marked as deleted: `mlflow gc` removes those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlflow.entities import ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from perpetune.tracking.runs import Run, run_ref

_PAGE = 1000


def runs_before(experiment: str, kind: str, before: datetime) -> Iterator[Any]:
    """MLflow's records of the runs tagged `perpetune.kind`=kind that began before then."""
    client, token = MlflowClient(), None
    found = client.get_experiment_by_name(experiment)
    query = f"tags.`perpetune.kind` = '{kind}' and attributes.start_time < {int(1000 * before.timestamp())}"
    while found is not None:
        page = client.search_runs([found.experiment_id], query, ViewType.ACTIVE_ONLY, _PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@dataclass(frozen=True)
class OldRun:
    """A run and the places of its artifacts: its own, and those of the models that it logged."""

    run: Run
    places: tuple[str, ...]
    models: tuple[str, ...]
    bytes: int


def old_run(found: Any) -> OldRun:
    """The run of MLflow's record, with the bytes that its deletion frees."""
    models = _models_of(found)
    places = (str(found.info.artifact_uri), *(str(each.artifact_location) for each in models))
    run = run_ref(found.info.experiment_id, found.info.run_id)
    return OldRun(run, places, tuple(each.model_id for each in models), sum(map(_size, places)))


def delete_old_run(old: OldRun) -> None:
    """Delete artifacts and models first and the run last, so that a deletion that was interrupted is repeated."""
    client = MlflowClient()
    for place in old.places:
        store: Any = get_artifact_repository(place)
        for each in store.list_artifacts():
            store.delete_artifacts(each.path)
    for model in old.models:
        client.delete_logged_model(model)
    client.delete_run(old.run.id)


def _models_of(found: Any) -> list[Any]:
    query = f"source_run_id = '{found.info.run_id}'"
    return list(MlflowClient().search_logged_models([found.info.experiment_id], query))


def _size(place: str) -> int:
    store = get_artifact_repository(place)
    return sum(_files(store, None))


def _files(store: Any, folder: str | None) -> Iterator[int]:
    for each in store.list_artifacts(folder):
        if each.is_dir:
            yield from _files(store, each.path)
        else:
            yield each.file_size or 0

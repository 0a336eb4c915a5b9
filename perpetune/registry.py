"""The one place that talks to MLflow's model registry.

A version is an adapter of a few MB and a reference to its base model, never a copy of the base.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from perpetune.errors import PerpetuneError
from perpetune.records import to_json
from perpetune.release import CARD, ModelCard, Release, Trial, Wanted, read_card
from perpetune.tracking import Run, pages

Alias = Literal["champion", "challenger", "previous"]


@dataclass(frozen=True)
class Version:
    """One model version as the registry knows it."""

    task: str
    version: str
    run_id: str
    tags: Mapping[str, str]


def register(run: Run, adapter: Path, card: ModelCard, tags: Mapping[str, str]) -> str:
    """Make the adapter a new version of the task's model, under the alias `challenger`; returns its number."""
    (adapter / CARD).write_text(to_json(card.model_dump(mode="json")), encoding="utf-8")
    with mlflow.start_run(run_id=run.id):
        logged = mlflow.pyfunc.log_model(
            name=card.task,
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"adapter": str(adapter)},
            signature=_signature(card),
            pip_requirements=["perpetune"],
            metadata={
                "base.model": card.base.model,
                "base.revision": card.base.revision,
                "base.digest": card.base_digest,
            },
            registered_model_name=card.task,
            await_registration_for=30,
        )
    version = str(logged.registered_model_version)
    client = MlflowClient()
    client.update_run(run.id, status="RUNNING")
    for key, value in tags.items():
        client.set_model_version_tag(card.task, version, key, value)
    client.set_registered_model_alias(card.task, "challenger", version)
    return version


def _signature(card: ModelCard) -> ModelSignature:
    outputs: list[ColSpec | TensorSpec] = [ColSpec("string", "output")]
    if card.kind == "classification":
        outputs.append(ColSpec("double", "confidence"))
    return ModelSignature(Schema([ColSpec("string", "input")]), Schema(outputs))


def begin_trial(task: str, version: str, strategy: Literal["canary", "shadow"], share: float) -> None:
    """Put the version on trial, in place of any other."""
    running = wanted(task).trial
    if running is not None and running.version != version:
        end_trial(task, running.version, "aborted")
    began = datetime.now(UTC).isoformat()
    tag_version(task, version, {"release.share": str(share), "release.time": began, "release.state": strategy})
    MlflowClient().set_registered_model_alias(task, "challenger", version)


def end_trial(task: str, version: str, outcome: Literal["refused", "aborted"]) -> None:
    """The version is not tried any more."""
    tag_version(task, version, {"release.state": outcome})
    challenger = find(task, "challenger")
    if challenger is not None and challenger.version == version:
        MlflowClient().delete_registered_model_alias(task, "challenger")


def wanted(task: str) -> Wanted:
    """What should be loaded."""
    champion, previous, challenger = (find(task, alias) for alias in ("champion", "previous", "challenger"))
    return Wanted(
        champion.version if champion else None, previous.version if previous else None, _trial(champion, challenger)
    )


def _trial(champion: Version | None, challenger: Version | None) -> Trial | None:
    if champion is None or challenger is None:
        return None
    strategies: dict[str, Literal["canary", "shadow"]] = {"canary": "canary", "shadow": "shadow"}
    strategy = strategies.get(challenger.tags.get("release.state", ""))
    return Trial(challenger.version, strategy, float(challenger.tags["release.share"])) if strategy else None


def roll_back(task: str) -> tuple[str, str]:
    """Make the previous version champion again; returns which gave way and which it is.

    Raises PerpetuneError where there is no previous one.
    """
    champion, previous = find(task, "champion"), find(task, "previous")
    if champion is None or previous is None:
        raise PerpetuneError(f"{task} has no previous champion to go back to", do="`perpetune status` lists versions")
    restore(task, previous.version, None)
    tag_version(task, champion.version, {"release.state": "rolled back"})
    return champion.version, previous.version


def restore(task: str, champion: str, previous: str | None) -> None:
    """Set both aliases; None takes `previous` away."""
    client = MlflowClient()
    client.set_registered_model_alias(task, "champion", champion)
    if previous is not None:
        client.set_registered_model_alias(task, "previous", previous)
    elif find(task, "previous") is not None:
        client.delete_registered_model_alias(task, "previous")


def promote(task: str, version: str) -> str | None:
    """Move `champion` to the version and `previous` to the old champion, whose number is returned."""
    client = MlflowClient()
    old = find(task, "champion")
    if old is not None and old.version != version:
        client.set_registered_model_alias(task, "previous", old.version)
    client.set_registered_model_alias(task, "champion", version)
    challenger = find(task, "challenger")
    if challenger is not None and challenger.version == version:
        client.delete_registered_model_alias(task, "challenger")
    released = {"release.state": "released", "release.time": datetime.now(UTC).isoformat()}
    tag_version(task, version, released)
    return old.version if old is not None else None


def find(task: str, alias: Alias) -> Version | None:
    """The version that bears the alias, or None where none does."""
    try:
        found = MlflowClient().get_model_version_by_alias(task, alias)
    except MlflowException as fault:
        if fault.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return Version(task, str(found.version), str(found.run_id), dict(found.tags))


def get(task: str, version: str) -> Version:
    """A version by its number. Raises PerpetuneError where there is none."""
    try:
        found = MlflowClient().get_model_version(task, version)
    except MlflowException as fault:
        raise PerpetuneError(
            f"the model {task} has no version {version}",
            do="`perpetune status` lists the versions",
        ) from fault
    return Version(task, str(found.version), str(found.run_id), dict(found.tags))


def versions(task: str) -> list[Version]:
    """All versions, newest first."""
    found = MlflowClient().search_model_versions(f"name = '{task}'")
    all_versions = [Version(task, str(each.version), str(each.run_id), dict(each.tags)) for each in found]
    return sorted(all_versions, key=lambda each: int(each.version), reverse=True)


def made_by(task: str, run: Run, adapter_digest: str) -> str | None:
    """The version that a run has already made of this adapter."""
    found = (
        each for each in versions(task) if each.run_id == run.id and each.tags.get("adapter.digest") == adapter_digest
    )
    return next((each.version for each in found), None)


def tag_version(task: str, version: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(task, version, key, value)


def describe_version(task: str, version: str, text: str) -> None:
    """What MLflow's page says of the version."""
    MlflowClient().update_model_version(task, version, text)


def model_url(task: str, version: str | None = None) -> str:
    """The page of the model, or of one of its versions."""
    page = f"{pages()}/#/models/{task}"
    return f"{page}/versions/{version}" if version else page


def fetch_release(task: str, version: str, cache: Path) -> Release:
    """Bring a version's adapter into the folder `cache` and read its card.

    Raises PerpetuneError where the version or its files are missing.
    """
    folder = cache / task / version
    if not folder.is_dir():
        unfinished = cache / task / f".{version}.{uuid.uuid4().hex}"
        unfinished.mkdir(parents=True)
        try:
            mlflow.artifacts.download_artifacts(f"models:/{task}/{version}", dst_path=str(unfinished))
            unfinished.rename(folder)
        except (MlflowException, OSError) as fault:
            if not folder.is_dir():  # else another process was faster
                raise PerpetuneError(
                    f"could not fetch version {version} of {task} from MLflow: {fault}",
                    do="check that the version exists and its artifacts are reachable",
                ) from fault
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    adapter = _adapter_folder(folder, task, version)
    card = read_card(adapter)
    return Release(task, version, adapter, card.instruction, card.labels, card.base)


def _adapter_folder(folder: Path, task: str, version: str) -> Path:
    card = next(folder.rglob(CARD), None)
    if card is None:
        raise PerpetuneError(
            f"version {version} of {task} holds no {CARD}: perpetune did not register it",
            where=str(folder),
            do="promote a version that `perpetune refresh` made",
        )
    return card.parent


@dataclass(frozen=True)
class RegistrySource:
    """The task's releases, as the gateway follows them."""

    task: str
    cache: Path

    def champion(self) -> str | None:
        found = find(self.task, "champion")
        return found.version if found else None

    def fetch(self, version: str) -> Release:
        return fetch_release(self.task, version, self.cache)

"""The one place that talks to MLflow's model registry.

A version is an adapter of a few MB (or examples, or a linear model) and a reference to its base model, never a copy of
the base.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from perpetune.errors import NoPrevious, PerpetuneError
from perpetune.model.release import (
    CARD,
    DesiredReleases,
    ModelCard,
    Release,
    ServingFacts,
    Trial,
    evaluated_file,
    read_card,
    release_of,
)
from perpetune.records import to_json
from perpetune.tracking.runs import Run, pages

Alias = Literal["champion", "challenger", "previous"]

# Tags of a version: what became of it (canary, shadow, released, promoted, aborted, refused, rolled back), the share
# of the traffic that its trial has, since when, and why it was refused.
STATE, TIME, REASON = "release.state", "release.time", "release.reason"
TRAFFIC, OLD_TRAFFIC = "release.traffic_ratio", "release.share"  # the old one is on versions of perpetune 0.1
SYSTEM = "system"  # a version's tag: how it answers (perpetune.model.release.System)
EVALUATED_AS = "evaluated.as"  # a version's tag: its name among the systems of the run that evaluated it
_LONGEST_TAG = 4000  # characters


@dataclass(frozen=True)
class Version:
    """One model version as the registry knows it."""

    task: str
    version: str
    run_id: str
    tags: Mapping[str, str]


def register(run: Run, adapter: Path, card: ModelCard, tags: Mapping[str, str]) -> str:
    """Make the adapter, or what candidates.py has saved, a new version of the task's model; returns its number.

    Its alias is `challenger`, unless a version on trial bears that: its trial goes on until another begins.
    """
    (adapter / CARD).write_text(to_json(card.model_dump(mode="json")), encoding="utf-8")
    with mlflow.start_run(run_id=run.id):
        logged = mlflow.pyfunc.log_model(
            name=card.task,
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts={"adapter": str(adapter)},
            signature=_signature(card),
            pip_requirements=["perpetune"],
            metadata={
                "base.model": card.base.model,
                "base.revision": card.base.revision,
                "base.digest": card.base_digest,
                "system": card.system,
            },
            registered_model_name=card.task,
            await_registration_for=30,
        )
    version = str(logged.registered_model_version)
    MlflowClient().update_run(run.id, status="RUNNING")
    tag_version(card.task, version, {SYSTEM: card.system, **tags})
    if wanted(card.task).trial is None:
        _point(card.task, "challenger", version)
    return version


def _signature(card: ModelCard) -> ModelSignature:
    outputs: list[ColSpec | TensorSpec] = [ColSpec("string", "output")]
    if card.labels is not None:
        outputs.append(ColSpec("double", "confidence"))
    return ModelSignature(Schema([ColSpec("string", "input")]), Schema(outputs))


def promote(task: str, version: str) -> str | None:
    """Move `champion` to the version and `previous` to the old champion, whose number is returned."""
    old = find(task, "champion")
    if old is not None and old.version != version:
        _point(task, "previous", old.version)
    _point(task, "champion", version)
    tag_version(task, version, {STATE: "released", TIME: _now()})
    _drop_challenger(task, version)
    return old.version if old is not None else None


def begin_trial(task: str, version: str, strategy: Literal["canary", "shadow"], share: float) -> None:
    """Put the version on trial, as `challenger`, for this share of the traffic, in place of any other."""
    running = wanted(task).trial
    if running is not None and running.version != version:
        end_trial(task, running.version, "aborted")
    tag_version(task, version, {STATE: strategy, TRAFFIC: f"{share:g}", TIME: _now()})
    _point(task, "challenger", version)


def traffic_ratio(tags: Mapping[str, str]) -> float:
    """How much of the traffic a version on trial gets."""
    return float(tags.get(TRAFFIC, tags.get(OLD_TRAFFIC, 0)))


def end_trial(task: str, version: str, outcome: Literal["refused", "aborted"]) -> None:
    """The version is not tried any more. One that is not on trial, as it took over meanwhile, stays what it is."""
    trial = wanted(task).trial
    if trial is None or trial.version != version:
        return
    tag_version(task, version, {STATE: outcome})
    _drop_challenger(task, version)


def restore(task: str, champion: str, previous: str | None) -> None:
    """Put the aliases back to where they were before a promotion that failed."""
    _point(task, "champion", champion)
    if previous is None:
        _drop_alias(task, "previous")
    else:
        _point(task, "previous", previous)


def refuse(task: str, version: str, back_to: str | None, why: str) -> bool:
    """Mark a version that a gateway may not serve, and take back from it the alias that it still bears.

    A champion or challenger that has moved on meanwhile stays what it is. Returns whether an alias moved.
    """
    tag_version(task, version, {STATE: "refused", REASON: why[:_LONGEST_TAG]})
    dropped = _drop_challenger(task, version)
    champion = find(task, "champion")
    if champion is None or champion.version != version:
        return dropped
    if back_to is None:
        _drop_alias(task, "champion")
        return True
    _point(task, "champion", back_to)
    previous = find(task, "previous")
    if previous is not None and previous.version == back_to:
        _drop_alias(task, "previous")
    return True


def roll_back(task: str) -> tuple[str, str]:
    """Make the previous champion champion again; returns the version that no longer is, and the one that is.

    Nothing is `previous` afterwards, so that a second call does not go forth again. Raises NoPrevious where
    there is nothing to go back to.
    """
    champion, previous = find(task, "champion"), find(task, "previous")
    if champion is None or previous is None or previous.version == champion.version:
        raise NoPrevious(
            f"there is no previous champion of {task} to go back to", do="have another serve with `perpetune promote`"
        )
    _point(task, "champion", previous.version)
    _drop_alias(task, "previous")
    tag_version(task, champion.version, {STATE: "rolled back"})
    tag_version(task, previous.version, {STATE: "released", TIME: _now()})
    return champion.version, previous.version


def wanted(task: str) -> DesiredReleases:
    """What a gateway should hold."""
    aliases = _aliases(task)
    champion, challenger = aliases.get("champion"), aliases.get("challenger")
    trial = _trial(get(task, challenger)) if champion and challenger else None
    return DesiredReleases(champion, aliases.get("previous"), trial)


def aliases_of(task: str) -> dict[str, tuple[str, ...]]:
    """The aliases of each version that has any."""
    found: dict[str, tuple[str, ...]] = {}
    for alias, version in _aliases(task).items():
        found[version] = (*found.get(version, ()), alias)
    return found


def _aliases(task: str) -> dict[str, str]:
    """Every alias and its version, asked for at once."""
    try:
        found = MlflowClient().get_registered_model(task).aliases
        return {alias: str(version) for alias, version in found.items()}  # a local store has them as numbers
    except MlflowException as fault:
        if fault.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _point(task: str, alias: Alias, version: str) -> None:
    _insist(MlflowClient().set_registered_model_alias, task, alias, version)


def _insist(write: Callable[..., object], *values: str) -> None:
    """Write an alias or a tag. If two write it for the first time at once, the database refuses one: it tries again."""
    try:
        write(*values)
    except MlflowException as fault:
        if "unique constraint" not in str(fault).lower():
            raise
        write(*values)


def _trial(challenger: Version) -> Trial | None:
    strategy = challenger.tags.get(STATE)
    share = traffic_ratio(challenger.tags)
    if strategy == "canary":
        return Trial(challenger.version, "canary", share)
    return Trial(challenger.version, "shadow", share) if strategy == "shadow" else None


def _drop_challenger(task: str, version: str) -> bool:
    challenger = find(task, "challenger")
    if challenger is None or challenger.version != version:
        return False
    _drop_alias(task, "challenger")
    return True


def _drop_alias(task: str, alias: Alias) -> None:
    MlflowClient().delete_registered_model_alias(task, alias)


def _now() -> str:
    return datetime.now(UTC).isoformat()


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
        _insist(MlflowClient().set_model_version_tag, task, version, key, value)


def describe_version(task: str, version: str, text: str) -> None:
    """What MLflow's page says of the version."""
    MlflowClient().update_model_version(task, version, text)


def delete_version(task: str, version: str) -> None:
    """Take a version away, with the run that made it."""
    found = get(task, version)
    MlflowClient().delete_model_version(task, version)
    MlflowClient().delete_run(found.run_id)


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
    evaluated = _evaluated(get(task, version).run_id, evaluated_file(card.system), folder)
    return release_of(card, task, version, adapter, evaluated)


def fetch_champion(task: str, cache: Path) -> Release | None:
    """The champion, as `fetch_release` brings it; None if there is none."""
    found = find(task, "champion")
    return fetch_release(task, found.version, cache) if found else None


def _evaluated(run_id: str, name: str, folder: Path) -> ServingFacts:
    """Asked for anew each time: a version is registered, and may be fetched, before it is evaluated.

    Only where the run surely has none may the check of parity be left out: an unreachable store raises.
    """
    client = MlflowClient()
    if name not in [file.path for file in client.list_artifacts(run_id)]:
        return ServingFacts()
    with TemporaryDirectory(dir=folder.parent) as here:
        found = Path(client.download_artifacts(run_id, name, here))
        return ServingFacts.model_validate_json(found.read_text(encoding="utf-8"))


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

    def wanted(self) -> DesiredReleases:
        return wanted(self.task)

    def fetch(self, version: str) -> Release:
        return fetch_release(self.task, version, self.cache)

    def refuse(self, version: str, back_to: str | None, why: str) -> None:
        refuse(self.task, version, back_to, why)

    def roll_back(self) -> tuple[str, str]:
        return roll_back(self.task)

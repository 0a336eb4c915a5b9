"""MLflow's model registry: versions, aliases, tags, trials.

A version is an adapter of a few MB (or few-shot examples, or a linear model) and a reference to its base model, never a
copy of the base.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from perpetune.errors import ChampionChanged, NoPrevious, PerpetuneError
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
from perpetune.tracking import weights_digest
from perpetune.tracking.alias_moves import Aliases, Change, aliases_of_model, is_moving, move, state_of_model, write
from perpetune.tracking.runs import Run, active, ui_url

Alias = Literal["champion", "challenger", "previous"]

# Tags of a version: its state (canary, shadow, released, promoted, aborted, refused, rolled back), the ratio of traffic
# of its trial, the time of the state, and the reason of a refusal.
STATE, TIME, REASON = "release.state", "release.time", "release.reason"
TRAFFIC, OLD_TRAFFIC = "release.traffic_ratio", "release.share"  # the old one is on versions of perpetune 0.1
SYSTEM = "system"  # tag: perpetune.model.release.System
CHECK_ERROR = "check.error"  # tag of the champion: when and why the newest check failed
EVALUATED_AS = "evaluated.as"  # tag: its name among the systems in the run that evaluated it
ANY = "any"  # whatever version is champion
_MAX_TAG = 4000  # characters


@dataclass(frozen=True)
class Version:
    """A model version in the registry."""

    task: str
    version: str
    run_id: str
    tags: Mapping[str, str]


def register(run: Run, adapter: Path, card: ModelCard, tags: Mapping[str, str]) -> str:
    """Register the folder of an adapter, or of an untrained version, as a new version; returns its number.

    It gets the alias `challenger`, unless a version on trial has it.
    """
    (adapter / CARD).write_text(to_json(card.model_dump(mode="json")), encoding="utf-8")
    digest = weights_digest.weights_digest(adapter)
    with active(run):
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
    tag_version(card.task, version, {SYSTEM: card.system, weights_digest.TAG: digest, **tags})
    if wanted(card.task).trial is None:
        _set_alias(card.task, "challenger", version)
    return version


def _signature(card: ModelCard) -> ModelSignature:
    outputs: list[ColSpec | TensorSpec] = [ColSpec("string", "output")]
    if card.labels is not None:
        outputs.append(ColSpec("double", "confidence"))
    return ModelSignature(Schema([ColSpec("string", "input")]), Schema(outputs))


def promote(task: str, version: str, replaces: str | None = ANY) -> str | None:
    """Move `champion` to the version and `previous` to the old champion; returns the old champion's number, if any.

    `replaces` is the champion that the version was compared with (None: there was none). Raises ChampionChanged if
    another version has become champion since.
    """

    def plan(aliases: Aliases) -> Change:
        old = aliases.get("champion")
        if replaces != ANY and old not in (replaces, version):
            raise champion_changed(task, version, replaces, old)
        moved: dict[str, str | None] = {"champion": version}
        if old is not None and old != version:
            moved = {"previous": old, **moved}
        if aliases.get("challenger") == version:
            moved["challenger"] = None
        return Change(moved, {version: {TIME: _now(), STATE: "released"}})

    return move(task, plan).get("champion")


def require_champion(task: str, version: str, compared: str | None) -> None:
    """Raises ChampionChanged if the champion is not the version that this one was compared with (None: none)."""
    serving = aliases_of_model(task).get("champion")
    if serving != compared:
        raise champion_changed(task, version, compared, serving)


def champion_changed(task: str, version: str, compared: str | None, champion: str | None) -> ChampionChanged:
    return ChampionChanged(
        f"version {version} of {task} was compared with {_named(compared)}, and meanwhile {_named(champion)} serves",
        do="`perpetune refresh` compares it with what serves now, without training it again",
    )


def _named(version: str | None) -> str:
    return f"version {version}" if version else "no version"


def begin_trial(task: str, version: str, strategy: Literal["canary", "shadow"], ratio: float) -> None:
    """Put the version on trial as `challenger`, for this ratio (0 to 1) of the traffic; another trial is aborted."""
    running = wanted(task).trial
    if running is not None and running.version != version:
        end_trial(task, running.version, "aborted")
    tag_version(task, version, {TRAFFIC: f"{ratio:g}", TIME: _now()})
    _set_alias(task, "challenger", version)
    tag_version(task, version, {STATE: strategy})  # begins the trial, so it comes last


def traffic_ratio(tags: Mapping[str, str]) -> float:
    """The ratio (0 to 1) of the traffic that a version on trial gets."""
    return float(tags.get(TRAFFIC, tags.get(OLD_TRAFFIC, 0)))


def end_trial(task: str, version: str, outcome: Literal["refused", "aborted"]) -> None:
    """End the version's trial; does nothing if it is not on trial, for example because it was promoted meanwhile."""
    trial = wanted(task).trial
    if trial is None or trial.version != version:
        return
    tag_version(task, version, {STATE: outcome})
    _drop_challenger(task, version)


def restore(task: str, champion: str, previous: str | None) -> None:
    """Restore the aliases from before a failed promotion."""
    move(task, lambda _: Change({"champion": champion, "previous": previous}))


def refuse(task: str, version: str, back_to: str | None, why: str) -> bool:
    """Tag a version as refused by a gateway, and remove its alias `champion` or `challenger`.

    Aliases that have moved to another version meanwhile stay. Returns whether an alias was moved or removed.
    """
    tag_version(task, version, {REASON: why[:_MAX_TAG]})

    def plan(aliases: Aliases) -> Change:
        moved: dict[str, str | None] = {"challenger": None} if aliases.get("challenger") == version else {}
        if aliases.get("champion") == version:
            moved["champion"] = back_to
            if back_to is not None and aliases.get("previous") == back_to:
                moved["previous"] = None
        return Change(moved, {version: {STATE: "refused"}})

    before = move(task, plan)
    return version in (before.get("challenger"), before.get("champion"))


def roll_back(task: str) -> tuple[str, str]:
    """Move `champion` back to `previous`; returns the version rolled back and the one restored.

    The alias `previous` is removed, so that a second call does not undo the first. Raises NoPrevious if there is no
    previous champion.
    """

    def plan(aliases: Aliases) -> Change:
        champion, previous = aliases.get("champion"), aliases.get("previous")
        if champion is None or previous is None or previous == champion:
            raise NoPrevious(
                f"{task} has no previous champion to roll back to",
                do="promote another version with `perpetune promote`",
            )
        tags = {champion: {STATE: "rolled back"}, previous: {TIME: _now(), STATE: "released"}}
        return Change({"champion": previous, "previous": None}, tags)

    before = move(task, plan)
    return before["champion"], before["previous"]


def wanted(task: str) -> DesiredReleases:
    """The versions that a gateway should load."""
    aliases, registered = state_of_model(task)
    champion, challenger = aliases.get("champion"), aliases.get("challenger")
    found = _existing(task, challenger) if champion and challenger else None
    trial = _trial(found) if found else None
    return DesiredReleases(champion, aliases.get("previous"), trial, registered)


def running_trial(task: str) -> Trial | None:
    """The trial of a version beside the champion; None if there is none."""
    challenger = find(task, "challenger")
    return _trial(challenger) if challenger else None


def aliases_of(task: str) -> dict[str, tuple[str, ...]]:
    """The aliases by version."""
    found: dict[str, tuple[str, ...]] = {}
    for alias, version in aliases_of_model(task).items():
        found[version] = (*found.get(version, ()), alias)
    return found


def _set_alias(task: str, alias: Alias, version: str) -> None:
    write(MlflowClient().set_registered_model_alias, task, alias, version)


def _trial(challenger: Version) -> Trial | None:
    strategy = challenger.tags.get(STATE)
    ratio = traffic_ratio(challenger.tags)
    if strategy == "canary":
        return Trial(challenger.version, "canary", ratio)
    return Trial(challenger.version, "shadow", ratio) if strategy == "shadow" else None


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
    """The version with the alias; None if there is none."""
    return _with_alias(task, alias)


def _with_alias(task: str, alias: str) -> Version | None:
    """It takes as long however many versions there are. If a move begins between the two requests, the alias is where it was
    before or where the move puts it.
    """
    if is_moving(task):
        version = aliases_of_model(task).get(alias)
        return _existing(task, version) if version else None
    return _if_any(task, lambda: MlflowClient().get_model_version_by_alias(task, alias))


def get(task: str, version: str) -> Version:
    """A version by its number. Raises PerpetuneError if there is none."""
    found = _existing(task, version)
    if found is None:
        raise PerpetuneError(
            f"the model {task} has no version {version}",
            do="`perpetune status` lists the versions",
        )
    return found


def named(task: str, name: str) -> Version:
    """A version by its number or alias. Raises PerpetuneError if there is none."""
    return get(task, name) if name.isdecimal() else _with_alias(task, name) or get(task, name)


def _existing(task: str, version: str) -> Version | None:
    """The version, or None: one with an alias may have been deleted since the alias was read."""
    return _if_any(task, lambda: MlflowClient().get_model_version(task, version))


def _if_any(task: str, read: Callable[[], ModelVersion]) -> Version | None:
    try:
        return _version(task, read())
    except MlflowException as fault:
        if fault.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def versions(task: str) -> list[Version]:
    """All versions, newest first. It takes as long as there are many: a thousand are read in about a second."""
    return _search(task)


def newest(task: str, count: int, besides: Collection[str] = ()) -> tuple[list[Version], bool]:
    """The newest `count` versions and the numbers `besides`, newest first; and whether there are others.

    It takes as long however many there are.
    """
    found = MlflowClient().search_model_versions(
        f"name = '{task}'", max_results=count + len(besides) + 1, order_by=["version_number DESC"]
    )
    listed = {str(each.version): _version(task, each) for each in found[:count]}
    older = [known for each in besides if each not in listed and (known := _existing(task, each))]
    every = sorted([*listed.values(), *older], key=lambda each: int(each.version), reverse=True)
    return every, any(str(each.version) not in besides for each in found[count:])


def version_before(task: str, version: str) -> Version | None:
    """The newest version that is older; None if there is none."""
    older = MlflowClient().search_model_versions(
        f"name = '{task}' and version_number < {int(version)}", max_results=1, order_by=["version_number DESC"]
    )
    return _version(task, older[0]) if older else None


def versions_tagged(task: str, key: str, values: Iterable[str]) -> list[Version]:
    """Those versions whose tag has one of these values, newest first."""
    found = [each for value in values for each in _search(task, f" and tags.`{key}` = '{value}'")]
    return sorted(found, key=lambda each: int(each.version), reverse=True)


def _search(task: str, condition: str = "") -> list[Version]:
    found = MlflowClient().search_model_versions(f"name = '{task}'{condition}")
    every = [_version(task, each) for each in found]
    return sorted(every, key=lambda each: int(each.version), reverse=True)


def _version(task: str, found: ModelVersion) -> Version:
    return Version(task, str(found.version), str(found.run_id), dict(found.tags))


def version_from_run(task: str, run: Run, adapter_digest: str) -> str | None:
    """The version that a run has already registered for this adapter; None if there is none."""
    made = _search(task, f" and run_id = '{run.id}'")
    return next((each.version for each in made if each.tags.get("adapter.digest") == adapter_digest), None)


def tag_version(task: str, version: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        write(MlflowClient().set_model_version_tag, task, version, key, value)


def drop_tag(task: str, version: str, key: str) -> None:
    """Remove a tag of a version; does nothing if another process has."""
    try:
        MlflowClient().delete_model_version_tag(task, version, key)
    except MlflowException as fault:
        if fault.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def describe_version(task: str, version: str, text: str) -> None:
    """Set the version's description in MLflow."""
    MlflowClient().update_model_version(task, version, text)


def delete_version(task: str, version: str) -> None:
    """Delete a version and its run."""
    found = get(task, version)
    MlflowClient().delete_model_version(task, version)
    MlflowClient().delete_run(found.run_id)


def delete_version_alone(task: str, version: str) -> None:
    """Delete a version, and leave its run."""
    MlflowClient().delete_model_version(task, version)


def model_url(task: str, version: str | None = None) -> str:
    """The URL of the model, or of one of its versions, in MLflow's UI."""
    page = f"{ui_url()}/#/models/{task}"
    return f"{page}/versions/{version}" if version else page


def fetch_release(task: str, version: str, cache: Path) -> Release:
    """Download a version into the folder `cache` and read its model card and serving facts.

    The cache is keyed by digest: a model that was deleted and registered again has other versions under the same numbers.
    Raises PerpetuneError if the version or its files are missing, or the weights are not those that were registered.
    """
    found = get(task, version)
    folder = cache / task / f"{version}-{_digest_of(found)}"
    if not folder.is_dir():
        _download(found, folder)
    shutil.rmtree(cache / task / version, ignore_errors=True)  # of a perpetune that keyed it by number
    adapter = _adapter_folder(folder, task, version)
    weights_digest.require_registered(adapter, found.tags.get(weights_digest.TAG), version)
    card = read_card(adapter)
    return release_of(card, task, version, adapter, _evaluated(found.run_id, evaluated_file(card.system), folder))


def _digest_of(version: Version) -> str:
    """A digest of what the version holds: of the adapter and the run, which no two registrations share."""
    return hashlib.sha256(f"{version.tags.get('adapter.digest', '')} {version.run_id}".encode()).hexdigest()[:16]


def _download(version: Version, folder: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        mlflow.artifacts.download_artifacts(f"models:/{version.task}/{version.version}", dst_path=str(unfinished))
        _adapter_folder(unfinished, version.task, version.version)  # MLflow downloads nothing without an error
        unfinished.rename(folder)
    except (MlflowException, OSError) as fault:
        if not folder.is_dir():  # unless another process downloaded it
            raise PerpetuneError(
                f"could not fetch version {version.version} of {version.task} from MLflow: {fault}",
                do="check that the version exists and its artifacts are reachable",
            ) from fault
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def fetch_champion(task: str, cache: Path) -> Release | None:
    """The champion's release (see `fetch_release`); None if there is no champion."""
    found = find(task, "champion")
    return fetch_release(task, found.version, cache) if found else None


def _evaluated(run_id: str, name: str, folder: Path) -> ServingFacts:
    """Not cached, because a version may be fetched before it is evaluated.

    The parity check is skipped only if the run has no such file: an unreachable store raises.
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
            f"version {version} of {task} has no {CARD}: perpetune did not register it, or its artifacts are lost",
            do="use a version that `perpetune refresh` made, or restore MLflow's artifact store",
        )
    return card.parent


@dataclass(frozen=True)
class RegistrySource:
    """The source of the task's releases for the gateway."""

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

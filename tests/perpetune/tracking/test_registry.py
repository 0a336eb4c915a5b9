"""The real MLflow registry on a SQLite store."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from perpetune.errors import PerpetuneError
from perpetune.model.adapters import trainable
from perpetune.model.base import load_base
from perpetune.model.release import CARD, EVALUATED, DesiredReleases, GoldenPrompt, ModelCard, ServingFacts, Trial
from perpetune.params import BaseParams, LoraParams
from perpetune.records import Message
from perpetune.tracking import alias_moves, registry
from perpetune.tracking.runs import Run, close_run, connect, find_run, log_text, newest_run, open_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> None:
    folder = tmp_path_factory.mktemp("mlflow")
    connect(new_mlflow_store(folder))
    MlflowClient().create_experiment("colours", artifact_location=str(folder / "artifacts"))


SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}


def register(base: BaseParams, folder: Path) -> str:
    loaded = load_base(base, folder, "fp32")
    adapter = folder / "tuned"
    model = trainable(loaded, "lora", LoraParams(rank=2, alpha=4, dropout=0.0, target_modules="all-linear"), 1)
    torch.manual_seed(1)
    model.save_pretrained(str(adapter))
    card = ModelCard(
        task="colours",
        kind="classification",
        instruction="which colour",
        labels=("blue", "red"),
        base=base,
        base_digest=loaded.digest,
        precision="fp32",
        max_new_tokens=4,
        output_schema=SCHEMA,
    )
    run = open_run("colours", "refresh", {"perpetune.kind": "refresh"}, {})
    version = registry.register(run, adapter, card, {"data.version": "abc", "adapter.digest": "f00d"})
    assert registry.version_from_run("colours", run, "f00d") == version
    assert registry.version_from_run("colours", run, "cafe") is None
    close_run(run, succeeded=True)
    assert newest_run("colours", "refresh") is not None
    return version


def aliases(task: str = "colours") -> list[str | None]:
    found = [registry.find(task, name) for name in ("champion", "challenger", "previous")]
    return [version.version if version else None for version in found]


def test_versions_their_aliases_and_their_files(tiny_params: BaseParams, tmp_path: Path) -> None:
    assert aliases() == [None, None, None]
    first = register(tiny_params, tmp_path)
    assert aliases() == [None, first, None]
    assert registry.promote("colours", first) is None
    assert aliases() == [first, None, None]
    second = register(tiny_params, tmp_path)
    assert aliases() == [first, second, None], "a challenger changes nothing else"
    assert registry.promote("colours", second) == first
    assert aliases() == [second, None, first]
    assert [version.version for version in registry.versions("colours")] == [second, first]
    assert registry.get("colours", first).tags["data.version"] == "abc"

    release = registry.fetch_release("colours", first, tmp_path / "cache")
    assert (release.instruction, release.labels, release.base) == ("which colour", ("blue", "red"), tiny_params)
    assert (release.output_schema, release.json_schema) == (SCHEMA, json.dumps(SCHEMA))
    assert (release.adapter / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "tuned" / "adapter_model.safetensors"
    ).read_bytes()
    assert [path.name.partition("-")[0] for path in (tmp_path / "cache" / "colours").iterdir()] == [first], "no scraps"
    size = sum(path.stat().st_size for path in release.adapter.rglob("*") if path.is_file())
    assert size < 1_000_000, "the base is not copied into a version"

    answers = mlflow.pyfunc.load_model(f"models:/colours/{first}").predict(pd.DataFrame({"input": ["the sky", "fire"]}))
    assert set(answers["output"]) <= {"blue", "red"}
    assert ((answers["confidence"] >= 0.5) & (answers["confidence"] <= 1)).all()


def test_a_version_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="has no version 99"):
        registry.get("colours", "99")
    with pytest.raises(PerpetuneError, match="has no version 99"):
        registry.fetch_release("colours", "99", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def task(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A task of the test's own."""
    name = str(request.node.name)
    MlflowClient().create_experiment(name, artifact_location=str(tmp_path / "artifacts"))
    MlflowClient().create_registered_model(name)
    return name


def version_of(task: str, *, promoted: bool = False) -> str:
    """A version without files, as challenger or, promoted, as champion."""
    run = open_run(task, "refresh", {}, {})
    close_run(run, succeeded=True)
    version = str(MlflowClient().create_model_version(task, f"runs:/{run.id}/model", run.id).version)
    MlflowClient().set_registered_model_alias(task, "challenger", version)
    if promoted:
        registry.promote(task, version)
    return version


def tags(task: str, version: str) -> dict[str, str]:
    return dict(registry.get(task, version).tags)


def test_a_promotion_says_since_when(task: str) -> None:
    version = version_of(task, promoted=True)
    said = tags(task, version)
    assert said["release.state"] == "released"
    assert datetime.now(UTC) - datetime.fromisoformat(said["release.time"]) < timedelta(seconds=30)


def test_a_trial_replaces_another(task: str) -> None:
    assert registry.wanted(task) == registry.wanted("unheard of") == DesiredReleases(None)
    champion, one = version_of(task, promoted=True), version_of(task)
    assert registry.wanted(task) == DesiredReleases(champion), "a challenger that was only registered is not tried"
    registry.begin_trial(task, one, "shadow", 0.25)
    assert registry.wanted(task) == DesiredReleases(champion, None, Trial(one, "shadow", 0.25))
    other = version_of(task)
    registry.begin_trial(task, one, "shadow", 0.25)  # as it was before `other` was registered
    registry.begin_trial(task, other, "canary", 0.1)
    assert registry.wanted(task) == DesiredReleases(champion, None, Trial(other, "canary", 0.1))
    assert tags(task, one)["release.state"] == "aborted"
    registry.end_trial(task, other, "refused")
    assert (registry.wanted(task), tags(task, other)["release.state"]) == (DesiredReleases(champion), "refused")


def test_a_trial_continues_while_another_version_is_registered(tiny_params: BaseParams, tmp_path: Path) -> None:
    first = register(tiny_params, tmp_path)
    registry.promote("colours", first)
    second = register(tiny_params, tmp_path)
    registry.begin_trial("colours", second, "canary", 0.1)
    third = register(tiny_params, tmp_path)
    trial = registry.wanted("colours").trial
    assert trial is not None and trial.version == second
    registry.begin_trial("colours", third, "canary", 0.1)
    assert tags("colours", second)["release.state"] == "aborted"
    registry.end_trial("colours", third, "aborted")


def test_a_version_that_is_deleted_while_aliases_are_read_is_none(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    champion, gone = version_of(task, promoted=True), version_of(task)
    registry.begin_trial(task, gone, "canary", 0.1)
    state, aliases = alias_moves.state_of_model(task), alias_moves.aliases_of_model(task)
    registry.delete_version(task, gone)
    monkeypatch.setattr(registry, "state_of_model", lambda _: state)
    monkeypatch.setattr(registry, "aliases_of_model", lambda _: aliases)

    wanted = registry.wanted(task)
    assert (wanted.champion, wanted.trial) == (champion, None)
    assert registry.find(task, "challenger") is None


def test_one_alias_is_read_without_reading_every_version(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To answer for the model, MLflow reads all its versions, of which there may be thousands."""
    champion, tried = version_of(task, promoted=True), version_of(task)
    registry.begin_trial(task, tried, "canary", 0.1)
    monkeypatch.delattr(MlflowClient, "get_registered_model")
    assert aliases(task) == [champion, tried, None]
    assert registry.running_trial(task) == Trial(tried, "canary", 0.1)
    assert [registry.named(task, name).version for name in ("champion", tried)] == [champion, tried]
    assert not alias_moves.complete_move(task)


def test_there_is_no_trial_of_a_version_that_was_only_registered(task: str) -> None:
    assert registry.running_trial(task) is None
    version_of(task, promoted=True)
    version_of(task)
    assert registry.running_trial(task) is None
    with pytest.raises(PerpetuneError, match="has no version previous"):
        registry.named(task, "previous")


def test_ending_one_trial_leaves_another(task: str) -> None:
    champion, one, other = version_of(task, promoted=True), version_of(task), version_of(task)
    registry.begin_trial(task, other, "canary", 0.1)
    registry.end_trial(task, one, "aborted")
    assert registry.wanted(task) == DesiredReleases(champion, None, Trial(other, "canary", 0.1))


def test_a_trial_that_was_won_is_not_ended_again(task: str) -> None:
    """As by a second check at the same time."""
    champion, tried = version_of(task, promoted=True), version_of(task)
    registry.begin_trial(task, tried, "canary", 0.1)
    registry.promote(task, tried)
    registry.end_trial(task, tried, "aborted")
    registry.promote(task, tried)
    assert aliases(task) == [tried, None, champion]
    assert tags(task, tried)["release.state"] == "released"


def test_a_promotion_that_failed_is_undone(task: str) -> None:
    first, second = version_of(task, promoted=True), version_of(task, promoted=True)
    registry.restore(task, first, None)
    assert aliases(task) == [first, None, None]
    third = version_of(task, promoted=True)
    registry.restore(task, first, second)
    assert aliases(task) == [first, None, second]
    assert third not in aliases(task)


def test_a_refused_version_loses_its_aliases(task: str) -> None:
    first, second, third = version_of(task, promoted=True), version_of(task, promoted=True), version_of(task)
    assert not registry.refuse(task, first, None, "it was slow")
    assert aliases(task) == [second, third, first], "it was champion no more"
    assert registry.refuse(task, third, second, "it does not load")
    assert aliases(task) == [second, None, first]
    assert registry.refuse(task, second, first, "x" * 9000)
    assert aliases(task) == [first, None, None]
    said = tags(task, second)
    assert (said["release.state"], set(said["release.reason"])) == ("refused", {"x"})
    assert registry.refuse(task, first, None, "nothing else is left")
    assert aliases(task) == [None, None, None]


def test_a_rollback_is_done_once(task: str) -> None:
    first = version_of(task, promoted=True)
    with pytest.raises(PerpetuneError, match="no previous champion"):
        registry.roll_back(task)
    second = version_of(task, promoted=True)
    assert registry.wanted(task) == DesiredReleases(second, first)
    assert registry.roll_back(task) == (second, first)
    assert (registry.wanted(task), tags(task, second)["release.state"]) == (DesiredReleases(first), "rolled back")
    assert tags(task, first)["release.state"] == "released"
    with pytest.raises(PerpetuneError, match="no previous champion"):
        registry.roll_back(task)
    assert aliases(task) == [first, None, None]


def test_serving_facts_are_fetched_again(tiny_params: BaseParams, tmp_path: Path) -> None:
    version, cache = register(tiny_params, tmp_path), tmp_path / "cache"
    assert registry.fetch_release("colours", version, cache).evaluated == ServingFacts()
    golden = GoldenPrompt(messages=(Message(role="user", content="the sky"),), output="blue", confidence=0.9)
    evaluated = ServingFacts(temperature=1.5, golden=(golden,), max_tokens=4)
    run: Run = find_run(registry.get("colours", version).run_id)
    log_text(run, evaluated.model_dump_json(), EVALUATED)
    assert registry.fetch_release("colours", version, cache).evaluated == evaluated
    assert [path.name.partition("-")[0] for path in (cache / "colours").iterdir()] == [version], "no scraps"


def test_a_version_without_its_files_is_an_error_and_leaves_nothing(task: str, tmp_path: Path) -> None:
    version = version_of(task)
    with pytest.raises(PerpetuneError, match=f"version {version} of .* has no {CARD}"):
        registry.fetch_release(task, version, tmp_path / "cache")
    assert list((tmp_path / "cache" / task).iterdir()) == []


def test_a_model_registered_anew_is_not_served_from_the_cache(task: str, tmp_path: Path) -> None:
    """Version 1 again, with another adapter, or with the same one and another instruction."""
    cache, client = tmp_path / "cache", MlflowClient()
    old = cache / task / "1"
    old.mkdir(parents=True)
    (old / CARD).write_text("an older perpetune keyed the folder by number")
    for digest, instruction in (("f00d", "say yes"), ("cafe", "say no"), ("cafe", "say maybe")):
        adapter = tmp_path / instruction
        adapter.mkdir()
        card = ModelCard(
            task=task,
            kind="generation",
            instruction=instruction,
            labels=None,
            base=BaseParams(model="path:none"),
            base_digest="b",
            precision="fp32",
            max_new_tokens=4,
            system="prompted",
        )
        run = open_run(task, "refresh", {}, {})
        version = registry.register(run, adapter, card, {"adapter.digest": digest})
        close_run(run, succeeded=True)
        assert version == "1"
        registered = registry.promote(task, version), registry.wanted(task).registered
        for _ in range(2):
            assert registry.fetch_release(task, version, cache).instruction == instruction
        assert not old.exists()
        client.delete_registered_model(task)
        client.create_registered_model(task)
        assert registry.wanted(task).registered != registered[1]


def test_a_dead_server_is_one_clear_error() -> None:
    here = mlflow.get_tracking_uri()
    with pytest.raises(PerpetuneError, match=r"the MLflow server does not answer at http://127.0.0.1:9") as fault:
        connect("http://127.0.0.1:9")
    assert "MLFLOW_TRACKING_URI" in str(fault.value)
    assert mlflow.get_tracking_uri() == here


def test_several_that_promote_the_first_version_at_once_all_succeed(tmp_path: Path) -> None:
    client = MlflowClient()
    for task in ("crowd-1", "crowd-2", "crowd-3"):
        client.create_registered_model(task)
        client.create_model_version(task, str(tmp_path))
        with ThreadPoolExecutor(8) as gateways:
            list(gateways.map(lambda _, task=task: registry.promote(task, "1"), range(8)))
        assert registry.wanted(task) == DesiredReleases("1")


@pytest.mark.parametrize(
    ("said", "is_conflict"),
    [
        ("UNIQUE constraint failed: registered_model_tags.key", True),
        ('duplicate key value violates unique constraint "registered_model_tag_pk"', True),
        ("UPDATE statement on table 'registered_model_tags' expected to update 1 row(s); 0 were matched.", True),
        ("the model has no version 7", False),
    ],
)
def test_a_write_that_met_another_is_repeated_and_an_error_is_not(said: str, is_conflict: bool) -> None:
    written: list[str] = []

    def set_tag(value: str) -> None:
        written.append(value)
        if len(written) < 4:
            raise MlflowException(said)

    with nullcontext() if is_conflict else pytest.raises(MlflowException, match="no version 7"):
        alias_moves.write(set_tag, "one")
    assert len(written) == (4 if is_conflict else 1)


def test_a_trial_that_an_older_perpetune_began_keeps_its_traffic() -> None:
    assert registry.traffic_ratio({"release.share": "0.2"}) == 0.2
    assert registry.traffic_ratio({"release.share": "0.2", "release.traffic_ratio": "0.1"}) == 0.1


def test_only_the_registered_weights_are_loaded(tiny_params: BaseParams, tmp_path: Path) -> None:
    version, cache = register(tiny_params, tmp_path), tmp_path / "cache"
    adapter = registry.fetch_release("colours", version, cache).adapter
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    changed = bytearray(whole)
    changed[-1] ^= 1
    for path, content in ((weights, bytes(changed)), (adapter / "label_head.safetensors", whole)):
        path.write_bytes(content)
        with pytest.raises(PerpetuneError, match="are not those that were registered"):
            registry.fetch_release("colours", version, cache)
        weights.write_bytes(whole)
    (adapter / "label_head.safetensors").unlink()
    assert registry.fetch_release("colours", version, cache).adapter == adapter
    (adapter / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(PerpetuneError, match=r"adapter_model\.bin: .*only safetensors are loaded"):
        registry.fetch_release("colours", version, cache)
    (adapter / "adapter_model.bin").unlink()
    # In the artifact store, from where a gateway without a cache downloads it.
    uri = MlflowClient().get_model_version_download_uri("colours", version)
    [stored] = Path(mlflow.artifacts.download_artifacts(uri)).rglob(weights.name)
    stored.write_bytes(bytes(changed))
    with pytest.raises(PerpetuneError, match="are not those that were registered"):
        registry.fetch_release("colours", version, tmp_path / "another")
    stored.write_bytes(whole)


def test_a_version_of_before_the_digest_is_loaded(tiny_params: BaseParams, tmp_path: Path) -> None:
    version = register(tiny_params, tmp_path)
    registry.drop_tag("colours", version, "weights.digest")
    assert registry.fetch_release("colours", version, tmp_path / "cache").version == version


def test_versions_are_found_without_reading_all() -> None:
    MlflowClient().create_registered_model("many")
    run = open_run("colours", "refresh", {"perpetune.kind": "refresh"}, {})
    for _ in range(12):
        MlflowClient().create_model_version("many", f"runs:/{run.id}/model", run.id)
    close_run(run, succeeded=True)
    for version, value in (("2", "waiting"), ("11", "approved"), ("9", "waiting"), ("5", "refused")):
        registry.tag_version("many", version, {"approval.state": value})
    registry.delete_version_alone("many", "8")

    def before(version: str) -> str | None:
        found = registry.version_before("many", version)
        return found.version if found else None

    assert [before(version) for version in ("12", "10", "9", "2", "1")] == ["11", "9", "7", "1", None]
    found = registry.versions_tagged("many", "approval.state", ("waiting", "approved"))
    assert [(each.version, each.tags["approval.state"]) for each in found] == [
        ("11", "approved"),
        ("9", "waiting"),
        ("2", "waiting"),
    ]
    assert registry.versions_tagged("nothing", "approval.state", ("waiting",)) == []

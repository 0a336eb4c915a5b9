"""The real registry of MLflow, on a SQLite store of its own."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from perpetune import registry
from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams, LoraParams
from perpetune.release import ModelCard
from perpetune.tracking import close_run, connect, newest_run, open_run
from perpetune.training.base import load_base
from perpetune.training.methods import trainable


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mlflow")
    connect(f"sqlite:///{folder / 'mlflow.db'}")
    MlflowClient().create_experiment("colours", artifact_location=str(folder / "artifacts"))


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
    )
    run = open_run("colours", "refresh", {"perpetune.kind": "refresh"}, {})
    version = registry.register(run, adapter, card, {"data.version": "abc", "adapter.digest": "f00d"})
    assert registry.made_by("colours", run, "f00d") == version
    assert registry.made_by("colours", run, "cafe") is None
    close_run(run, succeeded=True)
    assert newest_run("colours", "refresh") is not None
    return version


def aliases() -> list[str | None]:
    found = [registry.find("colours", name) for name in ("champion", "challenger", "previous")]
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
    assert (release.adapter / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "tuned" / "adapter_model.safetensors"
    ).read_bytes()
    assert sorted(path.name for path in (tmp_path / "cache" / "colours").iterdir()) == [first], "no scraps"
    size = sum(path.stat().st_size for path in release.adapter.rglob("*") if path.is_file())
    assert size < 1_000_000, "the base is not copied into a version"

    answers = mlflow.pyfunc.load_model(f"models:/colours/{first}").predict(pd.DataFrame({"input": ["the sky", "fire"]}))
    assert set(answers["output"]) <= {"blue", "red"}
    assert ((answers["confidence"] >= 0.5) & (answers["confidence"] <= 1)).all()


def test_a_version_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="has no version 99"):
        registry.get("colours", "99")
    with pytest.raises(PerpetuneError, match="could not fetch version 99 of colours"):
        registry.fetch_release("colours", "99", tmp_path)
    assert list((tmp_path / "colours").iterdir()) == []


def test_a_dead_server_is_one_clear_error() -> None:
    here = mlflow.get_tracking_uri()
    with pytest.raises(PerpetuneError, match=r"the MLflow server does not answer at http://127.0.0.1:9") as fault:
        connect("http://127.0.0.1:9")
    assert "MLFLOW_TRACKING_URI" in str(fault.value)
    assert mlflow.get_tracking_uri() == here

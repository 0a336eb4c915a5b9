"""What may veto, measured with a tiny model that was really trained, into the real MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from perpetune import registry
from perpetune.loop.assess import assess
from perpetune.loop.curate import Curated
from perpetune.loop.decide import register
from perpetune.loop.fine_tune import Challenger, fine_tune
from perpetune.params import BaseParams, Method, TrainParams
from perpetune.records import Example, write_jsonl
from perpetune.tracking import Run, connect, metrics_of, open_run
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[3]
THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}


@pytest.fixture
def method() -> Method:
    return "lora"


@pytest.fixture
def workspace(tmp_path: Path, tiny_params: BaseParams, train_params: TrainParams, method: Method) -> Workspace:
    connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    MlflowClient().create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings |= {"base": tiny_params.model_dump(), "train": train_params.model_dump() | {"method": method, "epochs": 4}}
    settings["task"] |= {"name": "colours", "instruction": "which colour"}
    settings["evaluate"]["bootstrap_samples"] = 100
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    workspace = open_workspace(tmp_path)
    splits = {"train": "the {}", "validation": "a {}", "frozen": "is it the {}"}
    for split, words in splits.items():
        write_jsonl(workspace.split(split), rows(split, words))
    write_jsonl(workspace.split("recent"), [])
    return workspace


def rows(split: str, words: str) -> list[Example]:
    return [
        Example(input=words.format(thing), output=colour, id=f"{split}-{thing}", group=thing, source="t")
        for thing, colour in THINGS.items()
    ]


def challenger(workspace: Workspace) -> tuple[Run, Challenger, str]:
    run = open_run("colours", "refresh", {}, {})
    trained = fine_tune(workspace, run, lambda _: None)
    return run, trained, register(workspace, run, Curated("0", {}, 0), trained, "0")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_all_limits_are_measured_against_the_base_and_then_against_the_champion(workspace: Workspace) -> None:
    run, trained, version = challenger(workspace)
    against_base = assess(workspace, run, trained, version, print)
    assert set(against_base.limits) == {"leakage", "near leakage", "forgetting", "latency", "cost"}
    forgotten = against_base.limits["forgetting"]
    assert forgotten.value != 0 and forgotten.interval is not None
    assert forgotten.interval.low <= forgotten.value <= forgotten.interval.high
    assert against_base.limits["leakage"].value == 0
    assert metrics_of(run.id)["forgetting/value"] == pytest.approx(forgotten.value)

    registry.promote("colours", version)
    itself = assess(workspace, run, trained, version, print)
    assert itself.champion == version
    assert itself.limits["forgetting"].value == pytest.approx(0, abs=1e-6), "it is compared with itself"
    assert "champion" in itself.limits["latency"].unit
    latency = itself.limits["latency"]
    assert latency.interval is not None and latency.interval.low <= latency.limit


def test_a_held_out_row_that_was_trained_on_is_counted(workspace: Workspace) -> None:
    write_jsonl(workspace.split("frozen"), [*rows("frozen", "is it the {}"), *rows("leaked", "The  {}")[:2]])
    run, trained, version = challenger(workspace)
    found = assess(workspace, run, trained, version, print).limits["leakage"]
    assert (found.value, found.limit, found.rows) == (2, 0, 8)

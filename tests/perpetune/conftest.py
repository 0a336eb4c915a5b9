"""A workspace that went through the loop twice: real DVC, the real MLflow on a SQLite store, the tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from workspaces import copied, once, write_params

from perpetune.loop.assess.assess import assess
from perpetune.loop.curate import curate, log_data
from perpetune.loop.decide import decide, register
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.training.fine_tune import fine_tune
from perpetune.settings import Settings
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[2]
THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
FILLERS = ["a", "the", "say", "is it", "the a", "a the", "is a", "it is", "say a", "say the", "a say", "it a"]
TRAIN = {
    "method": "lora",
    "objective": "auto",
    "lora": {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
    "precision": "fp32",
    "epochs": 3,
    "minutes": None,
    "batch_size": 8,
    "learning_rate": 0.01,
    "max_example_tokens": 48,
    "max_packed_tokens": 64,
    "validations": 2,
    "early_stopping_patience": None,
    "processes": 1,
    "checkpoint_seconds": 0,
    "seed": 7,
}


def write_rows(root: Path, fillers: Sequence[str], **other: str) -> None:
    """What the workspace's only source holds; `other` gives things another colour."""
    rows = [f"{filler} {thing},{colour}" for filler in fillers for thing, colour in (THINGS | other).items()]
    (root / "mine.csv").write_text("\n".join(["input,output", *rows]) + "\n", encoding="utf-8")


def one_pass(workspace: Workspace, trigger: str, reason: str) -> str:
    """From data to a decision, as the flow does it; returns the version.

    The first is champion before it is weighed: else a prompted version would be made to serve beside it.
    """
    curated = curate(workspace, reason)
    run = open_loop_run(workspace, "refresh", trigger, reason, reason, curated.version)
    log_data(workspace, run, curated)
    challenger = fine_tune(workspace, run, lambda _: None)
    version = register(workspace, run, curated, challenger, reason)
    if registry.find(workspace.params.task.name, "champion") is None:
        registry.promote(workspace.params.task.name, version)
    assessment = assess(workspace, run, challenger, version, lambda _: None)
    decide(workspace, run, curated, challenger, assessment, version, reason)
    close_run(run, succeeded=True)
    return version


def lay_out(root: Path, tiny_folder: Path, new_mlflow_store: Callable[[Path], str]) -> Workspace:
    """An empty workspace with the tiny model as its base."""
    write_params(
        root,
        task={"name": "colours", "instruction": "which colour", "labels": None},
        base={"model": f"path:{tiny_folder}", "revision": None},
        fetch={"sources": ["mine.csv"]},
        split={"frozen": 0.3, "validation": 0.1, "min_train_rows": 5},
        train=TRAIN,
        label_errors={"action": "off"},  # its imports take as long as all other stages
        private={"mode": "off"},
        evaluate={"few_shot_examples": 0, "bootstrap_samples": 100, "encoder": None},
    )
    shutil.copy(ROOT / "dvc.yaml", root)
    store = new_mlflow_store(root)
    connect(store)
    MlflowClient().create_experiment("colours", artifact_location=str(root / ".perpetune" / "artifacts"))
    return opened(root, store)


def opened(root: Path, store: str) -> Workspace:
    addresses = Settings(mlflow_tracking_uri=store, database_url=f"sqlite:///{root / 'predictions.db'}")
    return Workspace(root, open_workspace(root).params, addresses)


@pytest.fixture(scope="session")
def twice(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, new_mlflow_store: Callable[[Path], str]
) -> Workspace:
    """Version 1, champion, and version 2 on more rows, some of them with another colour. No test changes it.

    It is made once for all workers, of which each has a copy.
    """

    def make(root: Path) -> None:
        workspace = lay_out(root, tiny_folder, new_mlflow_store)
        write_rows(workspace.root, FILLERS[:8])
        one_pass(workspace, "manual", "a first model")
        write_rows(workspace.root, FILLERS, fire="blue")
        one_pass(workspace, "decay", "the champion scores 20 points less")

    return copy_of(once(tmp_path_factory, "twice", make), tmp_path_factory.mktemp("twice") / "workspace")


@pytest.fixture
def twice_again(twice: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it for a test that changes it."""
    return copy_of(twice.root, tmp_path / "workspace")


def copy_of(workspace: Path, into: Path) -> Workspace:
    """The copy, with MLflow connected to its store."""
    root = copied(workspace, into)
    store = f"sqlite:///{root / 'mlflow.db'}"
    connect(store)
    return opened(root, store)


@pytest.fixture(scope="session")
def new_loop_workspace(tiny_folder: Path, new_mlflow_store: Callable[[Path], str]) -> Callable[[Path], Workspace]:
    """Lay out a workspace with the tiny model in a folder."""
    return lambda root: lay_out(root, tiny_folder, new_mlflow_store)


@pytest.fixture(scope="session")
def run_loop_once() -> Callable[[Workspace, str, str], str]:
    """One pass of the loop, with its trigger and reason; the version it made."""
    return one_pass

"""Training runs on a bare machine: nothing of the servers, the data pipeline or the reports is imported."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example
from perpetune.training.job import read_trained
from perpetune.training.job_files import Job, write_job

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
# docs/guides/gpus.md says to install these; what they require comes with them.
INSTALLED = ("torch", "transformers", "peft", "accelerate", "pydantic", "jinja2")
# Python reads this at its start, in every process that training starts too.
SITE = """
import sys

class Bare:
    finders = list(sys.meta_path)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec), None)

    def find_distributions(self, *context):
        for finder in self.finders:
            yield from getattr(finder, "find_distributions", lambda *_: [])(*context)

sys.meta_path[:] = [Bare()]
"""


def closure() -> set[str]:
    """The distributions that a bare machine has."""
    found: set[str] = set()
    wanted = list(INSTALLED)
    while wanted:
        name = normal(wanted.pop())
        if name in found:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # required elsewhere: on Windows, or with a GPU
        found.add(name)
        wanted += [re.split(r"[\s;<>=!~\[(]", line)[0] for line in required if "extra ==" not in line]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds the standard library, this repository and what a bare machine has."""
    kept = closure()
    modules = importlib.metadata.packages_distributions()
    missing = {module for module, owners in modules.items() if not kept & {normal(owner) for owner in owners}} - {
        "perpetune"
    }
    assert missing >= {"mlflow", "prefect", "evidently", "dvc", "sqlalchemy", "fastapi", "pandas", "sklearn", "httpx"}
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(missing=missing))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def test_all_of_training_can_be_imported(bare: dict[str, str]) -> None:
    names = [f"perpetune.training.{path.stem}" for path in (ROOT / "perpetune" / "training").glob("[a-z]*.py")]
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(names)}"], env=bare, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_packages_missing_on_a_bare_machine_cannot_be_imported(bare: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", "import mlflow"], env=bare, capture_output=True, text=True)
    assert "No module named 'mlflow'" in done.stderr


def test_a_job_trains(
    bare: dict[str, str],
    tiny_params: BaseParams,
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
) -> None:
    params = train_params.model_copy(update={"epochs": 1.0})
    adapter, folder = tmp_path / "adapter", tmp_path / "job"
    job = Job(
        base=tiny_params,
        assets=tmp_path,
        instruction="which colour",
        params=params,
        adapter=adapter,
        checkpoints=tmp_path / "checkpoints",
    )
    write_job(folder, job, colour_rows, colour_rows)
    command = [sys.executable, "-m", "perpetune.training.job", str(folder)]
    done = subprocess.run(command, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    forecast, *steps = map(json.loads, done.stdout.splitlines())
    assert forecast["steps"] == 2
    assert [said["step"] for said in steps] == [1, 2]
    assert read_trained(folder).digest
    assert (adapter / "adapter_model.safetensors").is_file()

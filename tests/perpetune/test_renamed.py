"""Old names of modules go on working for what lies outside the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perpetune.renamed import ATTRIBUTES, RENAMED, new_name

ROOT = Path(__file__).parents[2]

# What the code imports that MLflow stored with each version before the layout of decision 19.
STORED = """
from perpetune.answer import Answer
from perpetune.release import ModelCard, read_card
from perpetune.records import Message, with_instruction
from perpetune.release import Evaluated, release_of
from perpetune.serving.remote_engine import ask_remote
from perpetune.settings import Settings
from perpetune.linear import linear_answers, load_linear_model
from perpetune.inference.answers import load_answerer

import perpetune.classifiers.linear
import perpetune.generation.answer
assert Answer is perpetune.generation.answer.Answer
assert linear_answers is perpetune.classifiers.linear.linear_answers
assert perpetune.linear.__spec__.name == "perpetune.classifiers.linear"
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_code_that_mlflow_stored_before_imports_what_it_needs() -> None:
    ran = python("-c", STORED)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", ["perpetune.serving", "flows"])
def test_commands_of_old_compose_files_start(module: str) -> None:
    ran = python("-m", module, "--help")
    assert ran.returncode == 0, ran.stderr


def test_every_new_name_exists() -> None:
    for old, new in RENAMED.items():
        found = python_path(new)
        assert found.is_file() or (found.with_suffix("") / "__init__.py").is_file(), old
    assert set(ATTRIBUTES) <= set(RENAMED.values())


def test_modules_inside_a_renamed_package_are_found_too() -> None:
    assert new_name("perpetune.serving.migrations.env") == "perpetune.prediction_log.migrations.env"
    assert new_name("perpetune.serving.__main__") == "perpetune.gateway.__main__"
    assert new_name("perpetune.gateway.app") is None


def python_path(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")

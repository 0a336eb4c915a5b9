"""Versions that were really trained, trained again."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from perpetune.reproduction.checkout import check_out, training_command
from perpetune.reproduction.reproduce import reproduce
from perpetune.tracking import registry
from perpetune.tracking.runs import connect
from perpetune.training.trainer import Progress
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@test")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_an_older_version_comes_out_bit_for_bit(twice: Workspace) -> None:
    told: list[Progress] = []
    said: list[str] = []
    found = reproduce(twice, "1", said.append, told.append)
    assert found.comparison.verdict == "identical"
    assert found.comparison.digest == registry.get("colours", "1").tags["adapter.digest"]
    assert [curve.largest for curve in found.comparison.curves] == [0.0, 0.0]
    assert told[-1].step == told[-1].steps
    assert any("installed code is used" in line for line in said), "the workspace is in no repository"
    assert found.folder is None and not list((twice.home / "reproductions").iterdir())


def test_code_of_another_kind_is_checked_out_and_found_to_differ(twice: Workspace, tmp_path: Path) -> None:
    """The recorded commit has a trainer with half the learning rate."""
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "perpetune", repository / "perpetune", ignore=shutil.ignore_patterns("__pycache__"))
    rows = repository / "perpetune/training/job.py"
    kept = rows.read_text()
    rows.write_text(kept.replace("        job.params,\n", "        job.params.model_copy(update={'seed': 8}),\n"))
    assert rows.read_text() != kept
    git(tmp_path, "init", "--quiet", str(repository))
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "another seed")
    commit = git(repository, "rev-parse", "HEAD")
    rows.write_text(kept)  # not committed: what counts is the commit
    for name in (".dvc", "params.yaml"):
        (repository / name).symlink_to(twice.root / name)
    connect(str(twice.settings.mlflow_tracking_uri))
    before = registry.get("colours", "2").tags["git.commit"]
    registry.tag_version("colours", "2", {"git.commit": commit + "+"})
    try:
        found = reproduce(replace(twice, root=repository), "2", lambda _: None, lambda _: None, keep=True)
    finally:
        registry.tag_version("colours", "2", {"git.commit": before})
    assert found.comparison.verdict != "identical"
    assert found.comparison.weights is not None and found.comparison.weights.largest > 0
    assert found.comparison.answers is not None and found.comparison.answers.score.n > 0
    assert "Changes that were not committed at the training are missing." in found.notes
    assert found.folder is not None and (Path(found.folder) / "code/perpetune").is_dir()
    assert git(repository, "worktree", "list").count("\n") == 0, "the repository is as it was"


def test_missing_code_is_noted(tmp_path: Path, twice: Workspace) -> None:
    git(tmp_path, "init", "--quiet", ".")
    (tmp_path / "notes.txt").write_text("nothing to train with")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "--quiet", "-m", "notes")
    commit = git(tmp_path, "rev-parse", "HEAD")
    for name, why in (
        (commit, "does not contain perpetune"),
        ("f" * 40, "does not have"),
        ("unknown", "no recorded commit"),
    ):
        code = check_out(tmp_path, name, tmp_path / "into")
        assert code.folder is None and why in code.note
        assert training_command(code, twice.params.train, None) is None


@pytest.mark.parametrize("given", [None, "srun --ntasks 2 python"])
def test_the_checked_out_code_goes_first(given: str | None, twice: Workspace, tmp_path: Path) -> None:
    from perpetune.reproduction.checkout import CodeCheckout

    command = training_command(CodeCheckout(tmp_path, ""), twice.params.train, given)
    assert command is not None and command.startswith(f"env PYTHONPATH={tmp_path} PYTHONSAFEPATH=1 ")
    assert given is None or command.endswith(given)

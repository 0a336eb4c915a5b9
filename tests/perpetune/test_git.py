"""Git in a repository of another user, as in a container that mounts the user's folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.git import git, is_in_repository
from perpetune.loop.run_context import git_commit
from perpetune.reproduction.checkout import CLONE

WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, which git takes for that of another user."""
    folder = tmp_path / "repository"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / "file").write_text("one")
    subprocess.run(["git", "add", "file"], cwd=folder, check=True)
    subprocess.run(["git", *WHO, "commit", "--quiet", "-m", "x"], cwd=folder, check=True)
    monkeypatch.setenv("HOME", str(tmp_path))  # without anybody's safe.directory
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 12345, 12345)
    return folder


def test_the_commit_of_another_users_workspace_is_known(repository: Path, tmp_path: Path) -> None:
    plain = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True)
    assert "dubious ownership" in plain.stderr, "git refuses it"
    commit = git_commit(repository)
    assert len(commit) == 40
    (repository / "file").write_text("two")
    assert git_commit(repository) == commit + "+"
    git(repository, *CLONE, str(repository), str(tmp_path / "clone"))
    assert git(tmp_path / "clone", "rev-parse", "HEAD") == commit
    assert not (tmp_path / ".gitconfig").exists(), "nobody's settings were changed"


def test_an_unknown_commit_in_a_repository_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    inside = tmp_path / "workspace"
    inside.mkdir()
    assert [git_commit(inside) for _ in range(3)] == ["unknown"] * 3
    said = capsys.readouterr().err
    assert said.count("the commit is unknown") == 1
    assert "HEAD" in said, "in git's words"


def test_outside_git_it_is_unknown_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if is_in_repository(tmp_path):
        pytest.skip("the folder for tests lies in a repository")
    assert git_commit(tmp_path) == "unknown"
    assert capsys.readouterr().err == ""


def test_without_git_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PerpetuneError, match="git is not installed"):
        git(tmp_path, "status")

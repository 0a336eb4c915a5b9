"""What DVC stores: the champion's data stay, whatever has come since, and those of a version that went go."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from perpetune.curation.running import dvc
from perpetune.errors import PerpetuneError
from perpetune.model.release import CARD
from perpetune.params import RetentionParams
from perpetune.reproduction.reproduce import reproduce
from perpetune.retention.data import dvc_at_rest, unneeded_objects
from perpetune.retention.prune import plan, prune
from perpetune.tracking import registry
from perpetune.workspace import Workspace

LATER = datetime.now(UTC) + timedelta(days=1000)
STAGES = """
stages:
  splits:
    cmd: python -c "import shutil; shutil.copytree('rows', 'data/splits')"
    deps: [rows]
    outs: [data/splits]
"""


def objects(root: Path) -> set[str]:
    """The names of the objects in the cache and in the remote of the workspace."""
    stores = (root / ".dvc/cache/files/md5", root / ".perpetune/dvc-remote/files/md5")
    return {path.parent.name + path.name for store in stores for path in store.glob("??/*")}


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@test")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def curate(root: Path, **files: str) -> str:
    """A data version of these files; returns its MD5."""
    for name, text in files.items():
        (root / "rows").mkdir(exist_ok=True)
        (root / "rows" / f"{name}.jsonl").write_text(text)
    found = dvc.reproduce(root).version
    dvc.push(root)
    return found


def workspace_of_dvc(root: Path) -> Path:
    (root / "dvc.yaml").write_text(STAGES)
    dvc.prepare(root, None)
    return root


def sweep(root: Path, *versions: str, commits: tuple[str, ...] = (), before: datetime = LATER) -> int:
    with dvc_at_rest(root):
        found = unneeded_objects(root, versions, commits, before)
        for path in found:
            path.unlink()
    return len(found)


@pytest.mark.slow
def test_data_of_kept_versions_come_back_and_others_can_be_made_again(tmp_path: Path) -> None:
    root = workspace_of_dvc(tmp_path)
    first = curate(root, train="a\n", frozen="shared\n")
    second = curate(root, train="b\n")
    third = curate(root, train="c\n")
    assert sweep(root, second, before=datetime.now(UTC) - timedelta(days=1)) == 0, "it is not old"
    assert sweep(root, first, second) == 0, "dvc.lock names the third"
    assert sweep(root, second) == 4, "a list and a file in two stores"
    assert sweep(root, second) == 0
    checked_out = dvc.checkout_splits(root, second, tmp_path / "second")
    assert {path.name: path.read_text() for path in checked_out.iterdir()} == {
        "train.jsonl": "b\n",
        "frozen.jsonl": "shared\n",
    }
    with pytest.raises(PerpetuneError, match="neither in DVC's cache nor in its remote"):
        dvc.checkout_splits(root, first, tmp_path / "first")
    assert dvc.data_version(root).version == third
    assert curate(root, train="a\n") == first, "DVC does not take it for present"
    assert (dvc.checkout_splits(root, first, tmp_path / "again") / "train.jsonl").read_text() == "a\n"


@pytest.mark.slow
def test_what_git_and_dvc_files_name_stays(tmp_path: Path) -> None:
    """Recorded commits, branches, tags and files that were added by hand; a link to a store of others is not followed."""
    git(tmp_path, "init", "--quiet", ".")
    root = workspace_of_dvc(tmp_path)
    made = {}
    for name in ("of a version", "of a branch", "of no one", "of a tag", "of now"):
        curate(root, train=f"{name}\n")
        git(root, "add", "dvc.yaml", "dvc.lock")
        git(root, "commit", "--quiet", "-m", name)
        made[name] = git(root, "rev-parse", "HEAD")
    git(root, "branch", "other", made["of a branch"])
    git(root, "tag", "v1", made["of a tag"])
    (root / "extra.csv").write_text("by hand")
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "extra.csv"], cwd=root, check=True)
    before = objects(root)
    assert sweep(root, commits=(made["of a version"], "0" * 40)) == 4, "a list and a file of one version, in two stores"
    assert len(before - objects(root)) == 2
    shared = tmp_path / "shared"
    (root / ".dvc/cache").rename(shared)
    (root / ".dvc/cache").symlink_to(shared)
    kept = objects(root)
    recorded = (made["of a version"],)
    assert unneeded_objects(root, (), recorded, LATER) == []
    git(root, "branch", "--quiet", "-D", "other")
    assert {path.parts[-5] for path in unneeded_objects(root, (), recorded, LATER)} == {"dvc-remote"}
    assert objects(root) == kept


@pytest.mark.slow
def test_a_list_that_cannot_be_read_stops_it(tmp_path: Path) -> None:
    root = workspace_of_dvc(tmp_path)
    version = curate(root, train="a\n")
    path = root / f".dvc/cache/files/md5/{version[:2]}/{version[2:]}.dir"
    path.chmod(0o644)
    path.write_text("{")
    with pytest.raises(PerpetuneError, match="cannot be read"):
        unneeded_objects(root, [version], (), LATER)


@pytest.mark.slow
def test_a_champion_is_reproduced_after_all_else_has_gone(tmp_path: Path, twice_again: Workspace) -> None:
    """The champion is version 2. Version 1 never served, and the data in the workspace are newer than both."""
    wanted = RetentionParams(report_days=30, check_days=31, refresh_days=31, release_days=1, data_days=1)
    workspace = replace(twice_again, params=twice_again.params.model_copy(update={"retention": wanted}))
    first, second = "1", "2"
    registry.promote("colours", second)
    registry.tag_version("colours", first, {registry.STATE: "refused", "decision": "reject"})
    MlflowClient().delete_registered_model_alias("colours", "previous")
    with (workspace.root / "mine.csv").open("a") as source:
        source.write("say it is a sky,blue\nsay it is a leaf,green\n")
    dvc.reproduce(workspace.root)

    def cards() -> list[Path]:
        return list((workspace.home / "artifacts").rglob(CARD))

    data = {each.version: each.tags["data.version"] for each in registry.versions("colours")}

    assert len(cards()) == 2
    promised = {each.name: each.count for each in prune(workspace, LATER, dry_run=True)}
    assert promised["runs of refreshes whose versions never served"] == 1
    assert len(registry.versions("colours")) == 2, "a dry run deletes nothing"
    *others, objects_of_dvc, _ = plan(workspace, LATER)
    for each in others:  # killed before the data, and repeated
        each.delete()
    assert objects_of_dvc.count > 0
    assert {each.name: each.count for each in prune(workspace, LATER, dry_run=False)} == {
        **dict.fromkeys(promised, 0),
        objects_of_dvc.name: objects_of_dvc.count,
    }
    assert all(each.count == 0 for each in prune(workspace, LATER, dry_run=False))

    assert [each.version for each in registry.versions("colours")] == [second]
    assert len(cards()) == 1, "the adapter that never served is gone"
    with pytest.raises(PerpetuneError, match="neither in DVC's cache nor in its remote"):
        dvc.checkout_splits(workspace.root, data[first], tmp_path / "gone")
    found = reproduce(workspace, second, lambda _: None, lambda _: None)
    assert found.comparison.verdict == "identical"
    assert dvc.reproduce(workspace.root).version not in data.values()


@pytest.mark.slow
def test_it_leaves_the_cache_alone_while_dvc_is_at_work(tmp_path: Path) -> None:
    root = workspace_of_dvc(tmp_path)
    with dvc_at_rest(root), pytest.raises(PerpetuneError, match="DVC is at work"), dvc_at_rest(root):
        pass
    assert curate(root, train="a\n"), "and DVC works on afterwards"

"""`perpetune data` on a workspace that went through the loop twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perpetune.cli import app
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def here(twice: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(twice.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(twice.settings.mlflow_tracking_uri))
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", str(twice.settings.database_url))
    return twice.root


def data(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["data", *arguments])
    assert done.exit_code == code, done.output
    return done.stdout if not code else done.output


def test_versions_are_listed_and_compared() -> None:
    [newest, oldest] = json.loads(data("list", "--json"))
    assert newest["now"] and not oldest["now"]
    assert (newest["models"][-1], oldest["models"][0]) == ("2", "1")
    found = json.loads(data("diff", "1", "now", "--json"))
    assert (found["before"], found["after"]) == (oldest["version"], newest["version"])
    rows = {each["kind"]: each["rows"] for each in found["changes"]}
    assert rows["added"] > 0
    assert json.loads(data("diff", oldest["version"][:6], "2", "--json")) == found
    shown = data("diff", "1")
    assert f"{rows['added']:,} added" in shown and "by label:" in shown and "by source: mine" in shown
    assert "the same rows in the same splits" in data("diff", "now", "now")
    assert oldest["version"] in data("list")
    assert "is no version of the data" in data("diff", "cafe", code=1)


def test_what_would_be_removed_is_shown_and_not_removed(here: Path) -> None:
    before = (here / "data/splits/train.jsonl").read_bytes()
    shown = data("remove", "--match", "A  SKY", "--dry-run")
    assert "would be erased" in shown and "DVC cache" in shown
    assert "version 1" in shown and "delete them there: mine.csv" in shown
    assert (here / "data/splits/train.jsonl").read_bytes() == before
    assert not (here / "erased.json").exists()
    said = json.loads(data("remove", "--match", "^a sk.$", "--regex", "--dry-run", "--json"))
    assert said["dry_run"] and said["rows"] >= 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--match", "a", "--id", "b"), 2, "one of --match, --id and --group"),
        (("--match", " "), 1, "would select every row"),
        (("--match", "(", "--regex"), 1, "is no regular expression"),
        (("--match", "x*", "--regex"), 1, "it matches every text"),
        (("--id", "nobody"), 1, "no row is selected"),
        ((), 1, "nothing was selected"),
    ],
)
def test_a_wrong_selection_is_refused(arguments: tuple[str, ...], code: int, words: str) -> None:
    assert words in data("remove", *arguments, code=code)


def test_a_row_that_was_never_curated_may_not_come_either(here: Path) -> None:
    """A file of the user that the next curation would read."""
    mine = (here / "mine.csv").read_text()
    (here / "mine.csv").write_text(f"{mine}a sky of Zed Qwertyman,blue\n")
    try:
        shown = data("remove", "--match", "zed qwertyman", "--dry-run")
    finally:
        (here / "mine.csv").write_text(mine)
    assert "1 row would be erased" in shown and "delete them there: mine.csv" in shown

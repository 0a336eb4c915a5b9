"""After an erasure no byte of the workspace, its remote and its databases holds the text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from predictions import answered

from perpetune.curation import dvc
from perpetune.curation.erased import load_tombstones
from perpetune.curation.ingest import ingest
from perpetune.curation.layout import INBOX
from perpetune.erasure.erase import Erasure, complete, erase, pending
from perpetune.erasure.selection import Selector
from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.label_requests import Drawn, request_labels
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Example, Feedback, Prediction, read_jsonl
from perpetune.reproduction.reproduce import reproduce
from perpetune.tracking import registry
from perpetune.tracking.runs import connect
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

MARKER = "Quincy Zanzibarson"
THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
FILLERS = ["a", "the", "say", "is it", "the a", "a the", "is a", "it is", "say a", "say the"]


def holders(root: Path, marker: str = MARKER) -> list[str]:
    """The files whose bytes hold a word of the marker, in any case."""
    words = [word.lower().encode() for word in marker.split()]
    files = {path: path.read_bytes().lower() for path in root.rglob("*") if path.is_file()}
    return sorted(str(path.relative_to(root)) for path, data in files.items() if any(word in data for word in words))


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    new_loop_workspace: Callable[[Path], Workspace],
    run_loop_once: Callable[[Workspace, str, str], str],
    tiny_encoder: BaseParams,
) -> Workspace:
    """A workspace whose loop ran on rows with the marker, in all splits, in the log and in every report of a run."""
    folder = tmp_path_factory.mktemp("trained")
    root = folder / "workspace"
    root.mkdir()
    workspace = new_loop_workspace(root)
    settings = yaml.safe_load((root / "params.yaml").read_text())
    settings["fetch"]["sources"] = ["inbox", "traffic"]
    settings["evaluate"] |= {"few_shot_examples": 8, "encoder": tiny_encoder.model_dump(mode="json")}
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    workspace = replace(workspace, params=open_workspace(root).params)
    rows = [(f"{filler} {thing}", colour) for filler in FILLERS for thing, colour in THINGS.items()]
    lines = [
        {
            "id": f"row-{n}",
            "group": f"group-{n}",
            "input": f"{text} says {MARKER if n % 3 == 0 else 'somebody'} who asked for number {n} of the list",
            "output": colour,
        }
        for n, (text, colour) in enumerate(rows)
    ]
    # A contradiction and a repeated row, so that the card and the quarantine show the marker.
    lines += [{**lines[0], "id": "other", "output": "red"}, {**lines[3], "id": "twice", "group": "group-3"}]
    lines.append({"input": f"no output, says {MARKER}"})
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest(folder / "mine.jsonl", root / INBOX)
    _serve(workspace)
    run_loop_once(workspace, "manual", "a first model")
    return workspace


def _serve(workspace: Workspace) -> None:
    """Requests and their labels; every second request names the marker, and so does a comment on another."""
    log = open_log(workspace.settings.prediction_log)
    when = datetime(2026, 5, 1, tzinfo=UTC)
    asked = [(f"p{n}", f"is it {MARKER if n % 2 else 'somebody'} who asks in request {n}") for n in range(12)]
    rows: list[Prediction | Feedback] = [_answered(id, text, when) for id, text in asked]
    rows += [
        Feedback(request_id=id, time=when, label="blue", comment=f"by {MARKER}" if id == "p2" else None)
        for id, _ in asked
    ]
    record_rows(log, rows)
    request_labels(log, [Drawn("p1", "lot", weight=1.0), Drawn("p4", "lot", weight=1.0)], when)
    log.dispose()
    spool = workspace.home / "spool"
    spool.mkdir(parents=True)
    waiting = _answered("p20", f"a waiting request of {MARKER}", when).model_dump_json()
    (spool / "rows-1").write_text(f'{{"prediction":{waiting}}}\n')


def _answered(id: str, text: str, when: datetime) -> Prediction:
    return answered(id, text, "blue", task="colours", time=when, version="0")


class Killed(BaseException):
    """Stands for a process that ends at this point."""


@dataclass(frozen=True)
class Done:
    """The workspace after the erasure, what held the marker before, and the result."""

    workspace: Workspace
    held: list[str]
    planned: Erasure
    erasure: Erasure
    version: str
    before: int


@pytest.fixture(scope="module")
def done(trained: Workspace) -> Done:
    """Planned, then killed once at the beginning of each part and completed."""
    connect(str(trained.settings.mlflow_tracking_uri))
    held = holders(trained.root)
    before = len(read_jsonl(trained.root / "data/raw/examples.jsonl", Example))
    selector = Selector(match=MARKER.lower().replace(" ", "  "))
    planned = erase(trained, selector, "asked by mail", lambda _: None, dry_run=True)
    assert holders(trained.root) == held, "a dry run changes nothing"
    parts = ["the inbox and data/", "the prediction log", "DVC cache", "DVC remote perpetune", "MLflow"]
    with pytest.raises(Killed):
        erase(trained, selector, "asked by mail", _killing(parts[0]))
    for part in parts[1:]:
        assert pending(trained)
        with pytest.raises(PerpetuneError, match="was interrupted and must be completed first"):
            erase(trained, selector, "", lambda _: None)
        with pytest.raises(Killed):
            complete(trained, _killing(part))
    erasure = complete(trained, lambda _: None)
    version = dvc.data_version(trained.root).version
    return Done(trained, held, planned, erasure, version, before)


def _killing(part: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        if line == part:
            raise Killed

    return say


def test_the_marker_was_everywhere_and_is_nowhere(done: Done) -> None:
    places = (
        "data/inbox",
        "data/splits",
        "data/card",
        ".dvc/cache",
        "dvc-remote",
        "artifacts/",
        "predictions.db",
        "spool",
    )
    for place in places:
        assert any(place in path for path in done.held), f"{place} did not hold it, so this test proves nothing"
    assert holders(done.workspace.root) == []
    assert not pending(done.workspace)
    assert done.erasure.completed and done.erasure.elsewhere == ()


def test_what_was_planned_is_what_was_done(done: Done) -> None:
    assert done.planned.dry_run and done.planned.rows == done.erasure.rows
    assert {each.place for each in done.planned.removed} >= {"data/inbox", "prediction log: predictions", "DVC cache"}
    assert done.planned.versions == done.erasure.versions
    log = open_log(done.workspace.settings.prediction_log)
    left = {row.id for row in recent_predictions(log, "colours", limit=None)}
    log.dispose()
    assert left == {"p0", "p4", "p6", "p8", "p10"}, "p2 went with its comment"


def test_the_version_that_learned_from_it_is_named(done: Done) -> None:
    [version] = [each for each in done.erasure.trained if each.version == "1"]
    assert version.learned and "champion" in version.aliases
    assert "rows on" in registry.get("colours", "1").tags["data.erased"]
    [stone] = load_tombstones(done.workspace.root).removals
    assert stone.models == tuple(each.version for each in done.erasure.trained)
    assert done.version in stone.versions
    assert stone.why == "asked by mail" and not stone.ids, "selected by a text: a corrected row may have its id"


def test_an_older_version_comes_back_without_the_rows(done: Done, tmp_path: Path) -> None:
    """As DVC gives it, from the remote alone, in another folder."""
    root = done.workspace.root
    clone = tmp_path / "clone"
    (clone / ".dvc").mkdir(parents=True)
    remote = root / ".perpetune/dvc-remote"
    (clone / ".dvc/config").write_text(f"[core]\n remote = r\n no_scm = true\n['remote \"r\"']\n url = {remote}\n")
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(root / name, clone)
    pulled = subprocess.run(
        [sys.executable, "-m", "dvc", "pull"],
        cwd=clone,
        capture_output=True,
        text=True,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
    )
    assert pulled.returncode == 0, pulled.stderr
    rows = [
        row
        for name in ("train", "validation", "frozen")
        for row in read_jsonl(clone / f"data/splits/{name}.jsonl", Example)
    ]
    assert 0 < len(rows) < done.before
    assert holders(clone) == []
    assert holders(dvc.checkout_splits(root, done.version, tmp_path / "splits")) == []


def test_erased_rows_do_not_come_back(done: Done, tmp_path: Path) -> None:
    root = done.workspace.root
    again = tmp_path / "again.jsonl"
    lines = [
        {"id": "row-0", "input": f"a sky says {MARKER} who asked for number 0 of the list", "output": "blue"},
        {"id": "new-id", "input": f"A sky  says {MARKER} who asked for number 0 of the list", "output": "red"},
        {"id": "row-3", "input": "a leaf says [name] who asked for number 3 of the list", "output": "green"},
    ]
    again.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = ingest(again, root / INBOX)
    assert found.examples == 1, "the corrected row is welcome"
    assert [row.line for row in found.rejected] == [1, 2]
    assert all("it was erased on" in row.reason and "asked by mail" in row.reason for row in found.rejected)
    assert holders(root) == [], "not even among the rejected rows"

    copied = root / INBOX / "copied-000000000000.jsonl"
    copied.write_text(json.dumps(lines[0]) + "\n")
    dvc.reproduce(root)
    assert holders(root) == [str(copied.relative_to(root))], "curation leaves out what was copied there"
    assert json.loads((root / "data/raw/counts.json").read_text())["erased"] == 1
    copied.unlink()


def test_a_reproduction_says_why_it_differs(done: Done) -> None:
    said: list[str] = []
    found = reproduce(done.workspace, "1", said.append, lambda _: None)
    assert found.comparison.verdict != "identical"
    assert any("the weights cannot be the same" in note for note in found.notes)
    assert holders(done.workspace.root) == []


def test_nothing_selected_is_said(done: Done) -> None:
    with pytest.raises(PerpetuneError, match="no row is selected"):
        erase(done.workspace, Selector(id="no such row"), "", lambda _: None)
    with pytest.raises(PerpetuneError, match="no erasure was interrupted"):
        complete(done.workspace, lambda _: None)


def test_by_id_and_group_the_ids_may_not_come_back(done: Done, tmp_path: Path) -> None:
    root = done.workspace.root
    erase(done.workspace, Selector(id="row-4"), "", lambda _: None)
    erase(done.workspace, Selector(group="group-5"), "", lambda _: None)
    rows = read_jsonl(next((root / INBOX).glob("mine-*.jsonl")), Example)
    assert not {row.id for row in rows} & {"row-4", "row-5"}
    again = tmp_path / "mine.jsonl"
    lines = [
        {"id": "row-4", "input": "another text", "output": "blue"},
        {"id": "x", "group": "group-5", "input": "one more", "output": "blue"},
        {"id": "y", "input": "a third", "output": "blue"},
    ]
    again.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row.line for row in ingest(again, root / INBOX).rejected] == [1, 2]

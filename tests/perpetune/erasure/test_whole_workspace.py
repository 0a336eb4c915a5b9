"""After an erasure no byte of the workspace, its remote and its databases holds the text."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.tracking import MlflowClient
from predictions import answered

from perpetune.annotation.bring import RECORD, record
from perpetune.annotation.exchange import write_tasks
from perpetune.annotation.records import Annotation, AnnotationTask, Subject
from perpetune.curation.erased import load_tombstones
from perpetune.curation.hosted.answer_file import HostedAnswer
from perpetune.curation.hosted.matching import load_answers, save_answers, stored
from perpetune.curation.ingest import ingest
from perpetune.curation.rows.dedup_key import row_hash
from perpetune.curation.running import dvc
from perpetune.curation.running.layout import HOSTED_ANSWERS, INBOX
from perpetune.erasure.erase import Erasure, complete, erase, pending
from perpetune.erasure.selection import Selector
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer
from perpetune.loop.assess.answering import cached
from perpetune.params import BaseParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import Drawn, request_labels
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Example, Feedback, Prediction, read_jsonl
from perpetune.reproduction.reproduce import reproduce
from perpetune.rules.apply import RuledRow
from perpetune.rules.replies import REPLIES, Reply, reply_cache
from perpetune.rules.store import store
from perpetune.tracking import registry
from perpetune.tracking.runs import connect
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

MARKER = 'Quincy "Ö\'Zé" Zanzibarson'
WORDS = ("quincy", "zanzibarson")
THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
FILLERS = ["a", "the", "say", "is it", "the a", "a the", "is a", "it is", "say a", "say the"]


def holders(root: Path, words: Sequence[str] = WORDS) -> list[str]:
    """The files whose bytes, or what is packed in them, hold a word of the marker, in any case."""
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    held = [
        path for path, data in files.items() if any(word in text.lower() for text in opened(data) for word in words)
    ]
    return sorted(str(path.relative_to(root)) for path in held)


def opened(data: bytes) -> Iterator[str]:
    """The bytes as text, and what a compressed or columnar file and a Base64 string hold."""
    yield data.decode("latin-1")
    if data.startswith(b"\x1f\x8b"):
        yield from opened(gzip.decompress(data))
    if data.startswith(b"PAR1"):
        yield str(pq.read_table(pa.BufferReader(data)).to_pylist())
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield from opened(archive.read(name))
    for packed in re.findall(rb'"(H4sI[A-Za-z0-9+/=]{20,})"', data):
        yield from opened(base64.b64decode(packed))


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
    del settings["private"]  # it looks as it does by default, and says what it found
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
    _use_everything_else(workspace, folder)
    return workspace


def _use_everything_else(workspace: Workspace, folder: Path) -> None:
    """What no pass of the loop writes: each feature of its own, with the marker in what it keeps."""
    root = workspace.root
    about = f"a question of {MARKER} that is in no row"
    row = read_jsonl(root / "data/splits/train.jsonl", Example)[0]
    marked = next(row for row in read_jsonl(root / "data/raw/examples.jsonl", Example) if MARKER in row.input)
    chosen = {"prompt": about, "chosen": "blue", "rejected": "red"}
    (folder / "pairs.jsonl").write_text(json.dumps(chosen) + "\n")
    ingest(folder / "pairs.jsonl", root / INBOX)
    asked = [{"role": "user", "content": marked.input}]
    answers = [
        HostedAnswer(None, tuple(asked), "an answer that names no one", "a"),
        HostedAnswer(marked.id, None, "by the id alone", "b"),
        HostedAnswer("x", ({"role": "user", "content": row.input},), f"as {MARKER} said", "c"),
        HostedAnswer("y", ({"role": "user", "content": row.input + "?"},), "blue", "d"),
    ]
    save_answers(root / HOSTED_ANSWERS, stored(answers))
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", HOSTED_ANSWERS], cwd=root, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "push", "-q"], cwd=root, check=True)
    subjects = [Subject(kind="row", id=marked.id, source=marked.source, label="blue"), Subject(kind="new", id="n")]
    texts = ["shown without what is private", f"a text of {MARKER}"]
    said = [Annotation(subject=s, text=t, label="blue", annotator="a") for s, t in zip(subjects, texts, strict=True)]
    kept = Annotation(subject=Subject(kind="row", id="kept", source="mine"), text="x", label="red", annotator="a")
    record([*said, kept], root)
    tasks = [AnnotationTask(subject=subjects[1], text=texts[1], why=f"{MARKER} asked")]
    write_tasks(root / "data/annotations/tasks.json", tasks, "label-studio", labelled=True)
    unlabelled = [Example(input=f"{about} {n}", output="", id=str(n), group=str(n), source="new") for n in range(2)]
    ruled = [
        RuledRow(unlabelled[0], {"colours": "blue"}, "blue", 0.9),
        RuledRow(unlabelled[1], {}, None, 0.0, "no rule voted"),
    ]
    store(ruled, root, "mine", add=True)
    with reply_cache(workspace.home / REPLIES) as cache:
        cache.put("1", "m", Reply("blue", 1, 1, 0.1), row_hash(marked))
        cache.put("2", "m", Reply(f"of {MARKER}: blue", 1, 1, 0.1), row_hash(row))
        cache.put("3", "m", Reply("red", 1, 1, 0.1), row_hash(unlabelled[0].model_copy(update={"input": "sky"})))
    cached(workspace.home / "answers", "settings", lambda row: row.messages, lambda rows: [ANSWER] * len(rows))(
        [marked, row.model_copy(update={"input": "sky"})]
    )
    log_drift_report(workspace)
    (workspace.home / "logs").mkdir()
    (workspace.home / "logs/gateway.log").write_text(f"failed: {json.dumps(json.dumps({'asked': MARKER}))}\n")
    (root / "wanted.jsonl").write_text(json.dumps({"request_id": "p1", "input": about, "label": ""}) + "\n")


ANSWER = Answer("a text that names no one", None, None, 1, 1, "stop", 0.1)


def log_drift_report(workspace: Workspace) -> None:
    """A report as `watch` logs it, whose labels name the marker."""
    frame = pd.DataFrame({"input": ["a", "b"] * 20, "prediction": [f"by {MARKER}", "blue"] * 20})
    page = workspace.root / "drift.html"
    packed = base64.b64encode(gzip.compress(html.escape(frame.to_json()).encode())).decode()
    page.write_text(f'<script>const packed = atob("{packed}")</script>')
    [experiment] = MlflowClient().search_experiments(filter_string="name = 'colours'")
    [run, *_] = MlflowClient().search_runs([experiment.experiment_id])
    MlflowClient().log_artifact(run.info.run_id, str(page), "drift")
    page.unlink()


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
        "data/hosted",
        "data/annotations/annotations.jsonl",
        "data/annotations/tasks.json",
        "data/rules",
        "data/inbox/rejected",
        "data/inbox/preferences",
        "rules/replies.db",
        "drift.html",
        "gateway.log",
    )
    for place in places:
        assert any(place in path for path in done.held), f"{place} did not hold it, so this test proves nothing"
    assert holders(done.workspace.root) == ["wanted.jsonl"], "which is the user's own"
    assert not pending(done.workspace)
    assert done.erasure.completed and done.erasure.elsewhere == ("wanted.jsonl",)
    assert "annotation tool" in done.erasure.notes[0]


def test_what_is_about_the_row_goes_also_if_it_names_no_one(done: Done) -> None:
    root = done.workspace.root
    assert [each.id for each in load_answers(root / HOSTED_ANSWERS)] == ["y"]
    assert [each.subject.id for each in read_jsonl(root / RECORD, Annotation)] == ["kept"]
    with reply_cache(done.workspace.home / REPLIES) as cache:
        assert [cache.get(key) is None for key in "123"] == [True, False, False]
    answers = [path.read_text() for path in (done.workspace.home / "answers").glob("*.jsonl")]
    assert sum(text.count(ANSWER.text) for text in answers) == 1
    texts = {row.input for row in read_jsonl(root / "data/raw/examples.jsonl", Example)}
    known = [np.load(file)["keys"] for file in (done.workspace.home / "embeddings").glob("*.npz")]
    assert sum(len(keys) for keys in known) // 16 <= len(texts)


def test_a_file_of_dvc_add_keeps_its_name_and_comes_back_without_the_row(done: Done) -> None:
    path = done.workspace.root / HOSTED_ANSWERS
    content = path.read_bytes()
    path.unlink()
    shutil.rmtree(done.workspace.root / ".dvc/cache")
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q", path], cwd=done.workspace.root, check=True)
    assert path.read_bytes() == content


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
    assert holders(root) == ["wanted.jsonl"], "not even among the rejected rows"

    copied = root / INBOX / "copied-000000000000.jsonl"
    copied.write_text(json.dumps(lines[0]) + "\n")
    dvc.reproduce(root)
    assert holders(root) == [str(copied.relative_to(root)), "wanted.jsonl"], "curation leaves out what was copied there"
    assert json.loads((root / "data/raw/counts.json").read_text())["erased"] == 1
    copied.unlink()


def test_a_reproduction_says_why_it_differs(done: Done) -> None:
    said: list[str] = []
    found = reproduce(done.workspace, "1", said.append, lambda _: None)
    assert found.comparison.verdict != "identical"
    assert any("the weights cannot be the same" in note for note in found.notes)
    assert holders(done.workspace.root) == ["wanted.jsonl"]


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

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perpetune.curation.ingest import ingest
from perpetune.curation.steps.fetch import fetch
from perpetune.errors import PerpetuneError


def test_all_sources_come_together_in_one_order(tmp_path: Path, wheel: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("input,output\nb,x\na,y\n,z\n")
    ingest(mine, tmp_path / "data/inbox")
    traffic = tmp_path / "data/traffic/labelled.jsonl"
    traffic.parent.mkdir()
    traffic.write_text('{"input": "c", "output": "z", "source": "elsewhere"}\n')

    sources = ("traffic", "inbox", "reviews")
    reading = fetch(sources, tmp_path, wheel.parent)

    assert {row.source for row in reading.examples} == {"mine", "reviews", "traffic"}
    assert [row.line for row in reading.rejected] == [4], "rows that ingestion refused are still told of"
    assert fetch(sources[::-1], tmp_path, wheel.parent) == reading


def test_traffic_and_inbox_may_be_absent_beside_another_source(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"input": "a", "output": "b"}\n')
    (folder / "b.csv").write_text("input,output\nc,d\n")
    (folder / "notes.txt").write_text("not data")

    reading = fetch(("files", "inbox", "traffic"), tmp_path, tmp_path)

    assert [row.source for row in reading.examples] == ["a", "b"]


@pytest.mark.parametrize(
    ("source", "words"),
    [("nowhere", "does not exist"), ("inbox", "no examples in fetch.sources"), ("reviews", "perpetune download")],
)
def test_a_source_that_brings_nothing_is_an_error(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(PerpetuneError, match=words):
        fetch((source,), tmp_path, tmp_path / "assets")


def test_uncertain_traffic_keeps_its_source(tmp_path: Path) -> None:
    file = tmp_path / "data" / "traffic" / "labelled.jsonl"
    file.parent.mkdir(parents=True)
    sources = ("traffic in doubt", "traffic", "somewhere")
    rows = [{"input": f"text {source}", "output": "yes", "id": source, "source": source} for source in sources]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    found = {row.id: row.source for row in fetch(("traffic",), tmp_path, tmp_path).examples}
    assert found == {"traffic in doubt": "traffic in doubt", "traffic": "traffic", "somewhere": "traffic"}

from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.curation.ingest import ingest
from perpetune.curation.quarantine import Rejected
from perpetune.errors import PerpetuneError
from perpetune.records import Example, read_jsonl


def test_a_file_is_brought_in_with_its_bad_rows_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "my tickets.csv"
    file.write_text("input,output\na,x\n,y\nb,z\n")

    done = ingest(file, tmp_path / "inbox")

    assert (done.source, done.examples, len(done.rejected), done.repeated) == ("my-tickets", 2, 1, False)
    rows = read_jsonl(done.path, Example)
    assert [(row.input, row.output, row.source) for row in rows] == [("a", "x", "my-tickets"), ("b", "z", "my-tickets")]
    assert done.rejected_path is not None
    assert [row.line for row in read_jsonl(done.rejected_path, Rejected)] == [3]


def test_the_same_content_again_writes_nothing_whatever_its_name(tmp_path: Path) -> None:
    file, copy = tmp_path / "a.jsonl", tmp_path / "copy.jsonl"
    file.write_text('{"input": "a", "output": "b"}\n')
    copy.write_bytes(file.read_bytes())
    first = ingest(file, tmp_path / "inbox")
    written = first.path.stat().st_mtime_ns

    again = ingest(copy, tmp_path / "inbox")

    assert again.repeated
    assert again.path == first.path
    assert again.examples == 1
    assert [path.name for path in (tmp_path / "inbox").iterdir()] == [first.path.name]
    assert first.path.stat().st_mtime_ns == written


def test_what_was_ingested_reads_back_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, '
        '{"role": "assistant", "content": "r"}], "time": "2024-05-01T12:00:00+02:00"}\n'
    )
    once = ingest(file, tmp_path / "inbox")
    twice = ingest(once.path, tmp_path / "second")

    assert read_jsonl(twice.path, Example) == read_jsonl(once.path, Example)


def test_a_file_without_one_good_row_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("input,output\na,\n,b\n")

    with pytest.raises(PerpetuneError, match="none of its 2 rows is a valid example: output: empty"):
        ingest(file, tmp_path / "inbox")

    assert not (tmp_path / "inbox").exists()


def test_a_file_cannot_pass_for_production_traffic_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "traffic.jsonl"
    file.write_text('{"input": "a", "output": "b"}\n')

    assert ingest(file, tmp_path / "inbox").source == "traffic-file"

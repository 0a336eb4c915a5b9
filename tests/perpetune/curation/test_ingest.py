from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from perpetune.curation.inbox.files import preferences_file
from perpetune.curation.inbox.store import locked
from perpetune.curation.ingest import ingest, preview
from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.options import read_options
from perpetune.curation.steps.fetch import fetch
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


@pytest.mark.parametrize("name", ["../out", "a/b", "a\\b", "/etc/x", ".hidden", " x", "", "a\nb", "n" * 200, "traffic"])
def test_a_name_that_leaves_the_inbox_or_is_reserved_is_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "in" / "a.jsonl", {"input": "a", "output": "b"})

    for run in (lambda: ingest(file, tmp_path / "w" / "inbox", source=name), lambda: preview(file, source=name)):
        with pytest.raises(PerpetuneError, match=r"--name"):
            run()

    assert [path.name for path in tmp_path.rglob("*.jsonl")] == ["a.jsonl"]


def test_a_name_of_any_script_is_kept(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"input": "a", "output": "b"})

    assert ingest(file, tmp_path / "inbox", source="Müller Anfragen 2").source == "Müller Anfragen 2"


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def tickets(folder: Path, labels: str, name: str = "tickets.jsonl", **more: object) -> Path:
    rows = [{"id": number, "input": f"ticket {number}", "output": label, **more} for number, label in enumerate(labels)]
    return write(folder / name, *rows)


def fetched(tmp_path: Path) -> list[tuple[str, str]]:
    """The id and label of each row that the pipeline reads from the inbox."""
    return sorted((row.id, row.output) for row in fetch(("inbox",), tmp_path, tmp_path).examples)


def test_a_corrected_label_wins_and_is_told_of(tmp_path: Path) -> None:
    inbox = tmp_path / "data/inbox"
    first = ingest(tickets(tmp_path / "monday", "abab"), inbox)
    second = ingest(tickets(tmp_path / "tuesday", "aaab"), inbox)

    assert (first.replaced, second.replaced) == (0, 1)
    found = fetch(("inbox",), tmp_path, tmp_path)
    assert len({(row.id, row.output) for row in found.examples}) == 4
    assert ("1", "a") in {(row.id, row.output) for row in found.examples}
    assert [(row.example.output, row.detail) for row in found.superseded] == [("b", f"newer in {second.path.name}")]

    again = ingest(tickets(tmp_path / "wednesday", "abab"), inbox)
    assert (again.path, again.repeated, again.replaced) == (first.path, False, 1)
    assert ("1", "b") in fetched(tmp_path)
    assert ingest(tickets(tmp_path / "thursday", "abab"), inbox).repeated


def test_a_newer_version_may_have_a_date_in_its_name(tmp_path: Path) -> None:
    inbox = tmp_path / "data/inbox"
    ingest(tickets(tmp_path, "abab", "tickets-2024-05.jsonl"), inbox)

    assert ingest(tickets(tmp_path, "aaab", "tickets-2024-06.jsonl"), inbox).replaced == 1
    assert {row.source for row in fetch(("inbox",), tmp_path, tmp_path).examples} == {"tickets-2024-05"}, (
        "its split stays"
    )
    assert ingest(tickets(tmp_path, "bbbb", "annotated-by-ben.jsonl"), inbox).replaced == 0


def test_the_time_of_a_row_counts_more_than_when_it_was_ingested(tmp_path: Path) -> None:
    inbox = tmp_path / "data/inbox"
    ingest(tickets(tmp_path / "new", "aaaa", time="2024-02-01"), inbox)
    late = ingest(tickets(tmp_path / "old", "bbbb", time="2024-01-01"), inbox)

    assert late.replaced == 4
    assert {label for _, label in fetched(tmp_path)} == {"a"}


def test_rows_without_ids_are_corrected_in_a_file_of_the_same_name(tmp_path: Path) -> None:
    inbox = tmp_path / "data/inbox"
    rows = [{"input": f"ticket {number}", "output": "a"} for number in range(4)]
    ingest(write(tmp_path / "one" / "tickets.jsonl", *rows), inbox)
    corrected = [*rows[:3], {"input": "ticket 3", "output": "b"}]

    assert ingest(write(tmp_path / "two" / "tickets.jsonl", *corrected), inbox).replaced == 1
    assert sorted(label for _, label in fetched(tmp_path)) == ["a"] * 6 + ["b"]


def test_exports_that_number_their_rows_anew_lose_none(tmp_path: Path) -> None:
    inbox = tmp_path / "data/inbox"
    for week in (1, 2, 3):
        rows = [{"id": number, "input": f"week {week} ticket {number}", "output": "a"} for number in range(6)]
        done = ingest(write(tmp_path / f"w{week}" / "export.jsonl", *rows), inbox)
        assert done.replaced == 0
        assert bool(done.notes) is (week > 1)

    assert len({id for id, _ in fetched(tmp_path)}) == 18

    rows = [{"id": number, "input": f"week 2 ticket {number}", "output": "b"} for number in range(6)]
    corrected = ingest(write(tmp_path / "again" / "export.jsonl", *rows), inbox)
    assert corrected.replaced == 6
    assert sorted(label for _, label in fetched(tmp_path)) == ["a"] * 12 + ["b"] * 6


def test_ids_that_start_again_are_told_of(tmp_path: Path) -> None:
    rows = [{"id": number % 6, "input": f"shard {number // 6} row {number}", "output": "a"} for number in range(12)]
    done = ingest(write(tmp_path / "train.jsonl", *rows), tmp_path / "data/inbox")

    assert done.notes == ("6 ids (0, 1, 2, ...) name different rows, which are told apart by their content instead",)
    assert len({id for id, _ in fetched(tmp_path)}) == 12


def test_it_says_what_it_read(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "context": "b", "response": "c", "category": "d"}, {"prompt": "a", "completion": "b"}]
    done = ingest(write(tmp_path / "a.jsonl", *rows), tmp_path / "inbox")

    assert done.schemas == {"Dolly": 1, "prompt/completion": 1}
    assert done.used == ("instruction", "context", "response", "prompt", "completion")
    assert done.ignored == ("category",)


def test_preferences_are_kept_beside(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "chosen": "right", "rejected": "wrong"},
        {"prompt": "b", "completion": "wrong", "label": False},
    ]
    done = ingest(write(tmp_path / "a.jsonl", *rows), tmp_path / "inbox")

    assert (done.examples, done.preferences, len(done.rejected)) == (1, 2, 1)
    assert "wrong" not in done.path.read_text()
    kept = [json.loads(line) for line in preferences_file(done.path).read_text().splitlines()]
    assert [sorted(line) for line in kept] == [["chosen", "prompt", "rejected"], ["completion", "label", "prompt"]]


def test_a_mapping_makes_another_content(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"input": "a", "output": "b", "label": "c"})
    plain = ingest(file, tmp_path / "inbox")
    mapped = ingest(file, tmp_path / "inbox", read_options(["output=label"], None, None))

    assert plain.path != mapped.path
    assert [row.output for row in read_jsonl(mapped.path, Example)] == ["c"]


@pytest.mark.parametrize("text", ["input", "inputs=a", "input=", "input=a+"])
def test_a_mapping_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(PerpetuneError, match="does not say which column is which"):
        read_options([text], None, None)


def test_a_preview_writes_nothing(tmp_path: Path) -> None:
    found = preview(tickets(tmp_path, "ab" * 10))

    assert (found.summary.examples, len(found.first)) == (20, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["tickets.jsonl"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PerpetuneError, match=r"it cannot be written: .*; nothing was added"):
        ingest(tickets(tmp_path, "ab"), tmp_path / "inbox")

    assert not [path for path in (tmp_path / "inbox").rglob("*") if path.is_file()]


def test_a_full_folder_of_temporary_files_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tickets(tmp_path, "ab" * 200)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(PerpetuneError, match=r"it cannot be written: .*; nothing was added") as fault:
            ingest(file, tmp_path / "inbox")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert fault.value.where is not None and fault.value.where.startswith(str(tmp_path / "temporary"))
    assert not (tmp_path / "inbox").exists()


def test_an_inbox_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("")
    with pytest.raises(PerpetuneError, match="it cannot be written"):
        ingest(tickets(tmp_path, "ab"), tmp_path / "inbox")


@pytest.mark.slow
def test_ingestions_at_the_same_time(tmp_path: Path) -> None:
    files = [tickets(tmp_path / str(number), "ab" * (number + 1)) for number in range(4)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        done = pool.starmap(ingest, [(file, tmp_path / "data/inbox") for file in [*files, *files]])

    assert [one.examples for one in done] == [2, 4, 6, 8] * 2
    assert len(list((tmp_path / "data/inbox").glob("*.jsonl"))) == 4
    assert len(set(fetched(tmp_path))) == 8


def test_a_long_wait_for_another_ingestion_ends(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(PerpetuneError, match="another ingestion"), locked(tmp_path, patience=0.1):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("wish", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_ingestion_adds_nothing_or_all(tmp_path: Path, wish: signal.Signals) -> None:
    file = tickets(tmp_path, "ab" * 20_000)
    code = "import sys; from pathlib import Path; from perpetune.curation.ingest import ingest; ingest(Path(sys.argv[1]), Path(sys.argv[2]))"
    child = subprocess.Popen([sys.executable, "-c", code, str(file), str(tmp_path / "inbox")])
    time.sleep(1.5)
    child.send_signal(wish)
    child.wait(timeout=30)

    assert [len(path.read_text().splitlines()) for path in (tmp_path / "inbox").glob("*.jsonl")] in ([], [40_000])
    assert ingest(file, tmp_path / "inbox").examples == 40_000

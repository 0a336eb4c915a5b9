from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import perpetune


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(
        "schema: 2\ntask: {name: t, kind: generation, instruction: Answer.}\nfetch: {sources: [inbox]}\n"
    )
    return tmp_path


def test_it_says_schema_columns_and_notes(workspace: Path) -> None:
    (workspace / "a.csv").write_text("instruction;output;colour\nSay a;a;red\n")
    said = perpetune(workspace, "ingest", "a.csv")

    assert said.exit_code == 0
    assert said.output.splitlines()[1:] == [
        "  read as Alpaca; columns used: instruction, output; ignored: colour",
        "  separator: semicolon",
    ]


def test_a_dry_run_shows_rows_as_they_will_be_learned(workspace: Path) -> None:
    (workspace / "faq.csv").write_text("question,context,reply\nWhere?,The desk,Here\n,,\n")
    columns = ("--map", "input=context+question", "--map", "output=reply")
    said = perpetune(workspace, "ingest", "faq.csv", *columns, "--dry-run")

    assert said.exit_code == 0
    assert "system: Answer.\nuser: The desk\n\nWhere?\n=> Here\n" in said.output
    assert "1 example, 1 to be quarantined; nothing was added" in said.output
    assert not (workspace / "data").exists()


def test_corrections_are_counted(workspace: Path) -> None:
    for output in ("x", "y"):
        (workspace / "a.jsonl").write_text(json.dumps({"id": 1, "input": "a", "output": output}))
        said = perpetune(workspace, "ingest", "a.jsonl")

    assert "1 row of earlier files replaced by a newer version" in said.output


def test_one_bad_file_of_a_folder_does_not_stop_the_others(workspace: Path) -> None:
    folder = workspace / "heap"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"input": "a", "output": "x"}')
    (folder / "b.json").write_text('{"version": 1}')
    (folder / "c.csv").write_text("input,output\nc,x\n")
    said = perpetune(workspace, "ingest", "heap", "--json")

    assert said.exit_code == 1
    assert [each["examples"] for each in json.loads(said.stdout)] == [1, 1]
    assert "1 file could not be read, 2 could:" in said.stderr
    assert "b.json: there are no columns `input` and `output`" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.jsonl",), "does not exist"),
        (("a.jsonl", "--map", "question"), "does not say which column is which"),
        (("a.jsonl", "--separator", "ab"), "a separator is one character"),
        (("a.jsonl", "--encoding", "latin99"), "no encoding named"),
        (("nowhere/*.jsonl",), "no file matches"),
    ],
)
def test_a_mistake_is_one_sentence(workspace: Path, arguments: tuple[str, ...], words: str) -> None:
    (workspace / "a.jsonl").write_text('{"input": "a", "output": "x"}')
    said = perpetune(workspace, "ingest", *arguments)

    assert said.exit_code == 1
    assert words in said.stderr
    assert "Traceback" not in said.output


def test_files_of_a_folder_that_are_not_read_are_named(workspace: Path) -> None:
    folder = workspace / "heap"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"input": "a", "output": "x"}')
    for name in ("rows.arrow", "README.md", ".DS_Store"):
        (folder / name).write_text("")
    said = perpetune(workspace, "ingest", "heap")

    assert said.exit_code == 0
    assert said.output.startswith("1 example in ")
    assert "2 files of the folder not read, for the suffix: README.md, rows.arrow" in said.output


def test_a_dry_run_shows_tool_calls_as_json(workspace: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"it": null}'}}
    turns = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "One moment.", "tool_calls": [call]},
        {"role": "tool", "content": "here", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Here."},
    ]
    (workspace / "a.jsonl").write_text(json.dumps({"messages": turns}))
    said = perpetune(workspace, "ingest", "a.jsonl", "--dry-run")

    assert f"assistant: One moment.\n{json.dumps([call])}\n" in said.output

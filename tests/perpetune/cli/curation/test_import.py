"""`perpetune import openai` on good and on hostile fine-tuning files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import perpetune

from perpetune.curation.hosted.matching import load_answers
from perpetune.curation.running.layout import HOSTED_ANSWERS
from perpetune.params import load_params

SYSTEM = {"role": "system", "content": "Which team? Grüße 👋"}
LABELS = ("lost card", "delivery")
GOOD = {"role": "assistant", "content": "delivery"}
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"id": 4}'}}
OTHER_CALL = {"id": "c2", "type": "function", "function": {"name": "ask", "arguments": "{}"}}


def chat(number: int, what: str = "message") -> list[dict[str, Any]]:
    return [SYSTEM, {"role": "user", "content": f"{what} {number}: 名前\u2028é"}]


def line(number: int, what: str = "message") -> dict[str, Any]:
    return {"messages": [*chat(number, what), {"role": "assistant", "content": LABELS[number % 2]}]}


def write(path: Path, *lines: object, end: str = "\n", bom: str = "") -> None:
    text = bom + "".join(json.dumps(each, ensure_ascii=False) + end for each in lines)
    path.write_bytes(text.encode())


def batch(number: int, output: str) -> tuple[dict[str, Any], dict[str, Any]]:
    body = {"choices": [{"message": {"role": "assistant", "content": output}, "finish_reason": "stop"}]}
    request = {
        "custom_id": f"r{number}",
        "method": "POST",
        "body": {"model": "ft", "messages": chat(number, "held out")},
    }
    return request, {"custom_id": f"r{number}", "response": {"status_code": 200, "body": body}, "error": None}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write(tmp_path / "training.jsonl", *map(line, range(30)))
    write(tmp_path / "validation.jsonl", *(line(number, "held out") for number in range(8)))
    asked, answered = zip(*(batch(number, LABELS[number % 2]) for number in range(6)), strict=True)
    write(tmp_path / "requests.jsonl", *asked)
    failed = {"custom_id": "r7", "response": {"status_code": 500, "body": {}}, "error": None}
    write(tmp_path / "hosted.jsonl", *answered, failed, {"custom_id": "who", **{"output": "delivery"}})
    return tmp_path


SETTINGS = "schema: 2\ntask: {name: mine, kind: generation, instruction: Mine.}\nfetch: {sources: [inbox]}\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """For what concerns the rows: `dvc init` for a new one takes longer than to read them."""
    (tmp_path / "params.yaml").write_text(SETTINGS)
    return tmp_path


ALL = ("--validation", "validation.jsonl", "--answers", "requests.jsonl", "--answers", "hosted.jsonl")


def test_from_nothing_to_a_workspace(files: Path) -> None:
    said = perpetune(files, "import", "openai", "training.jsonl", *ALL, "--task", "teams")

    assert said.exit_code == 0, said.output
    for expected in (
        "instruction: the system message of 38 of 38 rows",
        "kind: classification, since there are 2 different answers in 38 rows: delivery, lost card",
        "its rows are the frozen holdout, and are never trained on",
        "7 answers of the hosted model: 6 validation and 0 training rows have one",
        "2 validation rows have none, and are left out of the comparison",
        "1 answers belong to no row",
        "1 lines are of no use: response.status_code: the request failed with 500; the first: hosted.jsonl:7",
        "next: `perpetune up`",
    ):
        assert expected in said.output
    task = load_params(files / "params.yaml").task
    assert (task.name, task.kind, task.labels) == ("teams", "classification", ("delivery", "lost card"))
    assert task.instruction == SYSTEM["content"]
    assert len(load_answers(files / HOSTED_ANSWERS)) == 7
    assert 'source":"openai-validation' in next((files / "data/inbox").glob("openai-validation-*.jsonl")).read_text()


def test_a_workspace_that_is_there_keeps_its_settings(files: Path) -> None:
    (files / "params.yaml").write_text(SETTINGS)
    said = perpetune(files, "import", "openai", "training.jsonl", *ALL, "--json")

    assert (files / "params.yaml").read_text() == SETTINGS
    found = json.loads(said.stdout)
    assert (found["workspace"], found["task"], found["answers"]["validation"]) == (None, None, [6, 2])


def test_training_rows_with_answers_are_told_to_flatter_the_hosted_model(files: Path) -> None:
    write(files / "more.jsonl", *({"messages": chat(number), "output": "delivery"} for number in range(4)))
    said = perpetune(files, "import", "openai", "training.jsonl", "--answers", "more.jsonl")

    assert "0 validation and 4 training rows have one" in said.output
    assert "it looks better than it is" in said.output


HOSTILE: list[tuple[object, str, str]] = [
    ({"messages": [USER]}, "messages", "the last message must be the assistant's"),
    ({"messages": [GOOD]}, "messages", "there must be a user's message"),
    ({"messages": []}, "messages", "at least one message"),
    ({"messages": [USER, {**GOOD, "weight": 0}]}, "messages[1].weight", "marked as not to be learned"),
    ({"messages": [USER, {**GOOD, "weight": "0"}]}, "messages[1].weight", "must be 0 or 1, got '0'"),
    ({"messages": [USER, {**GOOD, "weight": 0.5}]}, "messages[1].weight", "must be 0 or 1"),
    ({"messages": [USER, {"role": "assistant", "content": ""}]}, "messages[1].content", "empty"),
    ({"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1].content", "missing"),
    ({"messages": [USER, {"role": "assistant"}]}, "messages[1].content", "missing"),
    ({"messages": [USER, {"role": "assistant", "content": None, "refusal": "No."}]}, "messages[1].refusal", "refused"),
    (
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{"}}],
                },
            ]
        },
        "messages[1].tool_calls",
        "function.arguments: is no JSON",
    ),
    ({"messages": [{"role": "human", "content": "a"}, GOOD]}, "messages[0].role", "must be one of"),
    ({"messages": [{"content": "a"}, GOOD]}, "messages[0].role", "must be one of"),
    ({"messages": ["a", GOOD]}, "messages[0]", "must be an object"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, GOOD]},
        "messages[0].content",
        "not text: image_url",
    ),
    (
        {"input": {"messages": [USER]}, "preferred_output": [], "non_preferred_output": [GOOD]},
        "preferred_output",
        "must be a list that ends with an assistant's message",
    ),
]


@pytest.mark.parametrize(("row", "field", "reason"), HOSTILE, ids=[f"{field}-{why:.20}" for _, field, why in HOSTILE])
def test_a_faulty_row_is_told_with_line_and_field(workspace: Path, row: object, field: str, reason: str) -> None:
    write(workspace / "training.jsonl", *map(line, range(30)), row)
    said = perpetune(workspace, "import", "openai", "training.jsonl")

    assert said.exit_code == 0, said.output
    (told,) = [each for each in said.output.splitlines() if each.startswith("  line 31: ")]
    assert told.startswith(f"  line 31: {field}: ")
    assert reason in told


KEPT: list[object] = [
    {"messages": [{**SYSTEM, "role": "developer"}, USER, GOOD]},
    {"messages": [{**USER, "name": "anna"}, {**GOOD, "name": "bot", "refusal": None, "annotations": []}]},
    {"messages": [USER, GOOD], "metadata": {"a": 1}, "note": "x"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}, GOOD]},
    {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "5"},
            GOOD,
        ],
        "functions": [],
    },
    {
        "messages": [
            USER,
            {"role": "assistant", "tool_calls": [CALL, OTHER_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            GOOD,
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
        "parallel_tool_calls": True,
    },
    {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER_CALL]}]},
    {"messages": [USER, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}], "functions": []},
    {"messages": [USER, {**GOOD, "weight": 1}, USER, {**GOOD, "weight": 0}]},
    {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [{**GOOD, "content": "x"}]},
    {"object": "chat.completion", "messages": [USER], "choices": [{"message": GOOD, "finish_reason": "stop"}]},
]


@pytest.mark.parametrize("row", KEPT, ids=[str(number) for number in range(len(KEPT))])
def test_a_row_in_any_documented_form_is_kept(workspace: Path, row: object) -> None:
    write(workspace / "training.jsonl", row, *map(line, range(30)), end="\r\n", bom="\ufeff")
    said = perpetune(workspace, "import", "openai", "training.jsonl", "--json")

    assert said.exit_code == 0, said.output
    (done,) = json.loads(said.stdout)["training"]
    assert (done["examples"], done["rejected"]) == (31, 0)


def test_nothing_is_written_if_a_file_is_of_no_use(files: Path) -> None:
    before = sorted(files.iterdir())
    write(files / "none.jsonl", {"custom_id": "a", "response": None, "error": {"message": "expired"}})
    cases = {
        ("training.jsonl", "--answers", "none.jsonl"): "there is no answer of the hosted model: none.jsonl:1: error",
        ("training.jsonl", "--validation", "gone.jsonl"): "gone.jsonl",
        ("none.jsonl",): "none.jsonl",
    }
    for arguments, told in cases.items():
        said = perpetune(files, "import", "openai", *arguments)
        assert said.exit_code == 1
        assert told in said.stderr
        assert sorted(files.iterdir()) == sorted([*before, files / "none.jsonl"])


def test_files_of_a_workspace_are_not_overwritten(files: Path) -> None:
    (files / "dvc.yaml").write_text("stages: {}\n")
    said = perpetune(files, "import", "openai", "training.jsonl")

    assert said.exit_code == 1
    assert "dvc.yaml" in said.stderr
    assert not (files / "params.yaml").exists()

"""Rows that answer with tool calls, from a fine-tuning file to the scores, with a tiny model that is really trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.curation.hosted.answer_file import read_answers
from perpetune.curation.hosted.matching import save_answers, stored
from perpetune.curation.readers.reader import read_examples
from perpetune.curation.running.layout import HOSTED_ANSWERS
from perpetune.loop.assess.assess import assess
from perpetune.loop.training.fine_tune import fine_tune
from perpetune.params import BaseParams, TrainParams
from perpetune.records import write_jsonl
from perpetune.tracking.runs import connect, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
TOOLS = [{"type": "function", "function": {"name": "paint", "parameters": {"type": "object", "properties": {}}}}]


def turn(colour: str, arguments: str = '{{"colour": "{}"}}') -> dict[str, object]:
    call = {"id": "c1", "type": "function", "function": {"name": "paint", "arguments": arguments.format(colour)}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.fixture
def workspace(
    tmp_path: Path, tiny_params: BaseParams, train_params: TrainParams, new_mlflow_store: Callable[[Path], str]
) -> Workspace:
    connect(new_mlflow_store(tmp_path))
    MlflowClient().create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))
    write_params(
        tmp_path,
        base=tiny_params.model_dump(),
        train=train_params.model_dump() | {"epochs": 1},
        task={"name": "colours", "kind": "generation", "instruction": "which colour"},
        evaluate={"bootstrap_samples": 100, "encoder": None, "max_new_tokens": 8},
    )
    workspace = open_workspace(tmp_path)
    for split in ("train", "validation", "frozen"):
        lines = [
            {"messages": [{"role": "user", "content": f"{split} the {thing}"}, turn(colour)], "tools": TOOLS}
            for thing, colour in THINGS.items()
        ]
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_jsonl(workspace.split(split), read_examples(path, "t").examples)
    write_jsonl(workspace.split("recent"), [])
    return workspace


def test_they_are_trained_on_and_scored_by_name_and_arguments(workspace: Workspace, tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "frozen the sky"}]
    lines = [
        {"messages": asked, "choices": [{"message": turn("blue", '{{ "colour" : "{}" }}')}]},
        {"input": "frozen the sea", "output": [turn("green")]},
        {
            "input": "frozen the grass",
            "output": '<tool_call>{"name": "paint", "arguments": {"colour": "green"}}</tool_call>',
        },
        {"input": "frozen the leaf", "output": "paint it green"},
    ]
    (tmp_path / "hosted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers, unusable = read_answers([(tmp_path / "hosted.jsonl", "hosted.jsonl")])
    save_answers(workspace.root / HOSTED_ANSWERS, stored(answers))
    run = open_run("colours", "refresh", {}, {})
    trained = fine_tune(workspace, run, lambda _: None)
    found = assess(workspace, run, trained, "1", print).evaluations["frozen"]

    assert unusable == []
    assert all(row.answers_with == "tool_calls" and row.tools for row in found.rows)
    assert found.scored["hosted"].scores == (1.0, 0.0, 1.0, 0.0)
    assert set(found.scored["challenger"].scores) <= {0.0, 1.0}
    assert found.scored["majority"].scores.count(1.0) == 2

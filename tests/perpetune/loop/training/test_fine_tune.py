"""Fine-tuning a tiny model with the real MLflow on a SQLite store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from transformers import AutoTokenizer
from workspaces import write_params

from perpetune.generation.answer import PromptRejected
from perpetune.loop.run_context import DEVICE_HOURS
from perpetune.loop.training.fine_tune import fine_tune
from perpetune.model.release import ModelCard
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example, Message, write_jsonl
from perpetune.tracking.runs import Run, close_run, connect, metrics_of, open_run
from perpetune.training.trainer import Progress
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

TEMPLATE = "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} </s>{% endfor %}"
THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> None:
    connect(new_mlflow_store(tmp_path_factory.mktemp("mlflow")))


@pytest.fixture
def workspace(tmp_path: Path, tiny_params: BaseParams, train_params: TrainParams) -> Workspace:
    write_params(
        tmp_path,
        base=tiny_params.model_dump(),
        train=train_params.model_dump() | {"epochs": 4},
        task={"name": "colours", "instruction": "which colour"},
        evaluate={"encoder": None},
    )
    workspace = open_workspace(tmp_path)
    rows = [Example(input=f"the {thing}", output=THINGS[thing], id=thing, group=thing, source="t") for thing in THINGS]
    for split in ("train", "validation"):
        write_jsonl(workspace.split(split), rows)
    return workspace


@pytest.fixture
def run(workspace: Workspace) -> Run:
    return open_run("colours", "refresh", {}, {})


def steps(run: Run, metric: str) -> list[int]:
    return [point.step for point in MlflowClient().get_metric_history(run.id, metric)]


class PowerCut(Exception):
    pass


def test_an_interrupted_training_has_one_curve(workspace: Workspace, run: Run) -> None:
    told: list[int] = []

    def tell(progress: Progress) -> None:
        told.append(progress.step)
        if told == [1, 2, 3, 4, 5]:
            raise PowerCut

    with pytest.raises(PowerCut):
        fine_tune(workspace, run, tell)
    assert steps(run, "train/loss") == [1, 2, 3, 4, 5]
    fine_tune(workspace, run, tell)
    assert told[5] > 1, "it went on from its checkpoint"
    assert steps(run, "train/loss") == list(range(1, 9))
    assert steps(run, "validation/loss") == [2, 4, 5, 7, 8]


def test_a_finished_training_is_not_repeated(workspace: Workspace, run: Run) -> None:
    told: list[Progress] = []
    first = fine_tune(workspace, run, told.append)
    made = len(told)
    assert fine_tune(workspace, run, told.append) == first
    assert len(told) == made
    assert steps(run, "train/loss") == list(range(1, made + 1))
    close_run(run, succeeded=True)


def test_the_hours_of_all_devices_count(workspace: Workspace, run: Run) -> None:
    trained = fine_tune(workspace, run, lambda _: None).trained
    assert trained.devices == 1
    assert metrics_of(run.id)[DEVICE_HOURS] == pytest.approx(trained.seconds / 3600)


def test_the_version_has_the_day_of_its_run_and_a_resumed_run_keeps_it(workspace: Workspace, run: Run) -> None:
    """A template with today's date gives the same tokens after midnight, so that the checkpoint is found again."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    began = MlflowClient().create_run(run.experiment_id, start_time=int(yesterday.timestamp() * 1000))
    run = replace(run, id=began.info.run_id)
    warnings: list[str] = []
    challenger = fine_tune(workspace, run, lambda _: None, warn=warnings.append)
    assert challenger.card.prompt_date == yesterday.date()
    assert challenger.card.prompt_format.day == yesterday.date()
    assert warnings == []
    again = ModelCard.model_validate_json(challenger.card.model_dump_json())
    assert again == challenger.card


def test_a_held_out_conversation_that_the_template_rejects_stops_before_the_training(
    workspace: Workspace, run: Run, tmp_path: Path
) -> None:
    base = tmp_path / "strict"
    shutil.copytree(workspace.params.base.model.removeprefix("path:"), base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = (
        "{% if messages | length > 2 %}{{ raise_exception('only one turn') }}{% endif %}" + TEMPLATE
    )
    tokenizer.save_pretrained(base)
    edit = (tmp_path / "params.yaml").read_text().replace(workspace.params.base.model, f"path:{base}")
    (tmp_path / "params.yaml").write_text(edit)
    talk = tuple(Message(role=role, content="the sky") for role in ("user", "assistant", "user"))
    row = Example(input="the sky", output="blue", id="talk-7", group="g", source="chat.jsonl", messages=talk)
    write_jsonl(workspace.split("frozen"), [row])
    with pytest.raises(PromptRejected, match=r"talk-7 \(chat.jsonl\).*only one turn"):
        fine_tune(open_workspace(tmp_path), run, lambda _: pytest.fail("trained"))

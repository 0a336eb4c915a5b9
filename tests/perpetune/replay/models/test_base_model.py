from __future__ import annotations

from pathlib import Path

from perpetune.params import BaseParams, Params, TrainParams
from perpetune.records import Example
from perpetune.replay.models.base_model import BaseModel
from perpetune.settings import Settings
from perpetune.workspace import Workspace


def test_adapters_and_answers_are_cached(
    tmp_path: Path, params: Params, tiny_params: BaseParams, train_params: TrainParams, colour_rows: list[Example]
) -> None:
    task = params.task.model_copy(update={"instruction": "which colour"})
    tiny = params.model_copy(update={"base": tiny_params, "train": train_params, "task": task})
    workspace, on_delta = Workspace(tmp_path, tiny, Settings()), list[str]()
    learned = BaseModel(workspace, tmp_path / "models", on_delta.append).fit(colour_rows, ())
    replies = learned.model.answer(colour_rows)

    assert on_delta and learned.seconds > 0
    assert sum(reply.answer == row.output for reply, row in zip(replies, colour_rows, strict=True)) >= 5

    again = BaseModel(workspace, tmp_path / "models", on_delta.append)
    steps = len(on_delta)
    repeated = again.fit(colour_rows, ())
    assert repeated.model.digest == learned.model.digest
    assert repeated.model.answer(colour_rows) == replies
    assert len(on_delta) == steps
    [kept] = (tmp_path / "models").glob("*/answers.jsonl")
    assert len(kept.read_text().splitlines()) == len(colour_rows)

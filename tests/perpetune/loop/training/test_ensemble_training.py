from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.classifiers.ensemble import Powers, load_pool, read_powers
from perpetune.inference.predictor import Predictor, load_predictor
from perpetune.loop.training.ensemble_training import launch_ensemble
from perpetune.model.adapters import trained_digest
from perpetune.model.release import POOL
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example, Message
from perpetune.training.job_files import Job

pytestmark = pytest.mark.slow

INSTRUCTION = "which colour"
COLOURS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
LABELS = ("blue", "green", "red")
ROWS = [
    Example(input=f"{adjective} {thing}", output=colour, id=f"{adjective} {thing}", group=thing, source="test")
    for thing, colour in COLOURS.items()
    for adjective in ("the", "a", "some", "this")
]


@pytest.fixture
def job(tiny_params: BaseParams, train_params: TrainParams, tmp_path: Path) -> Job:
    # One step teaches next to nothing: the linear model is what knows the words.
    params = train_params.model_copy(update={"epochs": 0.1, "validation_rows": 50})
    return Job(
        base=tiny_params, assets=tmp_path, instruction=INSTRUCTION, params=params, adapter=tmp_path / "adapter",
        checkpoints=None, labels=LABELS,
    )  # fmt: skip


def _answerer(job: Job) -> Predictor:
    predictor = load_predictor(job.base, job.assets, job.params.precision, 64)
    predictor.load_adapter("version", job.adapter)
    return predictor


def _asked(text: str) -> tuple[Message, ...]:
    return (Message(role="system", content=INSTRUCTION), Message(role="user", content=text))


def test_a_version_answers_with_the_linear_model_that_helps_it(job: Job, tiny_encoder: BaseParams) -> None:
    trained = launch_ensemble(job, tiny_encoder, ROWS, ROWS, lambda _: None)
    powers = read_powers(job.adapter)
    assert powers
    assert powers.linear > 0
    assert trained.digest == trained_digest(job.adapter)

    together = _answerer(job).answer("version", [_asked(row.input) for row in ROWS], LABELS, 4)
    assert [answer.text for answer in together] == [row.output for row in ROWS]
    pool = load_pool(job.adapter, job.assets)
    (job.adapter / POOL / "powers.json").write_text(Powers().model_dump_json())
    alone = _answerer(job).answer("version", [_asked(row.input) for row in ROWS], LABELS, 4)
    for row, own, both in zip(ROWS, alone, together, strict=True):
        assert both.probabilities == pytest.approx(pool.combine([own], [row.input])[0].probabilities, abs=1e-5)


def test_training_again_makes_the_same_version(job: Job, tiny_encoder: BaseParams) -> None:
    first = launch_ensemble(job, tiny_encoder, ROWS, ROWS, lambda _: None)
    assert launch_ensemble(job, tiny_encoder, ROWS, ROWS, lambda _: None).digest == first.digest


def test_without_an_encoder_a_head_or_validation_rows_there_is_no_ensemble(job: Job, tiny_encoder: BaseParams) -> None:
    launch_ensemble(job, tiny_encoder, ROWS, ROWS, lambda _: None)
    launch_ensemble(job, None, ROWS, ROWS, lambda _: None)
    assert read_powers(job.adapter) is None
    launch_ensemble(job, tiny_encoder, ROWS, ROWS[:19], lambda _: None)
    assert read_powers(job.adapter) is None
    launch_ensemble(job.model_copy(update={"labels": None}), tiny_encoder, ROWS, ROWS, lambda _: None)
    assert read_powers(job.adapter) is None

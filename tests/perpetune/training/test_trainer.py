from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from perpetune.errors import PerpetuneError
from perpetune.inference.merged_adapter import merge_adapter
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base, load_base
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example, conversation
from perpetune.training.batches import encode, encode_all
from perpetune.training.decoder.fused import training_network
from perpetune.training.trainer import Progress, mean_loss, train

pytestmark = pytest.mark.slow

COLOURS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}


def row(text: str, output: str) -> Example:
    return Example(input=text, output=output, id=text, group=text, source="test")


ROWS = [row(f"the {thing}", colour) for thing, colour in COLOURS.items()]
LABELS = ("blue", "green", "red")
INSTRUCTION = "which colour"


@pytest.mark.parametrize("method", ["rslora", "dora"])
def test_other_adapters_learn_and_answer(
    tiny_base: Base, train_params: TrainParams, tmp_path: Path, method: str
) -> None:
    params = train_params.model_copy(update={"method": method, "epochs": 10.0})
    seen: list[Progress] = []
    trained = train(tiny_base, ROWS, ROWS, INSTRUCTION, params, tmp_path / "adapter", seen.append)
    assert trained.validation_loss is not None
    assert trained.validation_loss < 0.7 * seen[0].loss

    predictor = Predictor(tiny_base, 64)
    predictor.load_adapter(method, tmp_path / "adapter")
    rows = [encode(tiny_base.tokenizer, one, INSTRUCTION) for one in ROWS]
    assert mean_loss(
        training_network(merge_adapter(tiny_base.model, tmp_path / "adapter"), torch.float32), rows, 64
    ) == pytest.approx(trained.validation_loss, rel=1e-4)


def test_training_learns_the_task_and_keeps_the_best_checkpoint(
    tiny_base: Base, train_params: TrainParams, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    trained = train(tiny_base, ROWS, ROWS, INSTRUCTION, train_params, tmp_path / "adapter", seen.append)

    assert len(seen) == trained.steps == 80
    losses = {one.step: one.validation_loss for one in seen if one.validation_loss is not None}
    assert len(losses) == train_params.validations
    assert trained.best_step == min(losses, key=lambda step: losses[step])
    assert trained.validation_loss == losses[trained.best_step]

    predictor = Predictor(tiny_base, 64)
    predictor.load_adapter("colours", tmp_path / "adapter")
    asked = [conversation(INSTRUCTION, one) for one in ROWS]
    assert [answer.text for answer in predictor.answer("colours", asked, LABELS, 4)] == list(COLOURS.values())


def test_the_best_weights_are_saved_not_the_last(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    """The validation answers contradict those that are learned: the more is learned, the worse they fare."""
    other = [row(one.input, LABELS[LABELS.index(one.output) - 1]) for one in ROWS]
    trained = train(tiny_base, ROWS, other, INSTRUCTION, train_params, tmp_path / "adapter", lambda _: None)

    predictor = Predictor(tiny_base, 64)
    predictor.load_adapter("best", tmp_path / "adapter")
    rows = [encode(tiny_base.tokenizer, one, INSTRUCTION) for one in other]
    assert trained.best_step < trained.steps
    assert mean_loss(
        training_network(merge_adapter(tiny_base.model, tmp_path / "adapter"), torch.float32), rows, 64
    ) == pytest.approx(trained.validation_loss, rel=1e-4)


def test_all_weights_learn_and_answer(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    params = train_params.model_copy(update={"method": "full", "epochs": 40.0, "learning_rate": 3e-3})
    trained = train(tiny_base, ROWS, ROWS, INSTRUCTION, params, tmp_path / "tuned", lambda _: None)

    whole = load_base(BaseParams(model=f"path:{tmp_path / 'tuned'}", revision=None), tmp_path, "fp32")
    rows = [encode(whole.tokenizer, one, INSTRUCTION) for one in ROWS]
    assert mean_loss(training_network(whole.model, torch.float32), rows, 64) == pytest.approx(
        trained.validation_loss, rel=1e-4
    )
    assert trained.validation_loss is not None
    assert trained.validation_loss < 0.1


def test_it_stops_early_without_improvement(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    other = [row(one.input, LABELS[LABELS.index(one.output) - 1]) for one in ROWS]
    params = train_params.model_copy(update={"validations": 20, "early_stopping_patience": 2})
    seen: list[Progress] = []
    trained = train(tiny_base, ROWS, other, INSTRUCTION, params, tmp_path / "adapter", seen.append)

    checked = [one.step for one in seen if one.validation_loss is not None]
    assert trained.steps == len(seen) == checked[checked.index(trained.best_step) + 2] < 80


def test_balanced_weights_make_a_rare_label_count_as_much(tiny_base: Base, train_params: TrainParams) -> None:
    rows = [*ROWS, *(row(f"the sky {word}", "blue") for word in ("a", "is", "it", "say"))]
    balanced = train_params.model_copy(update={"class_weights": "balanced"})
    weights = [one.weight for one in encode_all(tiny_base.tokenizer, rows, INSTRUCTION, balanced)]
    by_label = {label: sum(w for w, one in zip(weights, rows, strict=True) if one.output == label) for label in LABELS}
    assert list(by_label.values()) == pytest.approx([len(rows) / 3] * 3)
    assert {one.weight for one in encode_all(tiny_base.tokenizer, rows, INSTRUCTION, train_params)} == {1.0}


def test_auto_balances_labels_if_one_is_rare(tiny_base: Base, train_params: TrainParams) -> None:
    auto = train_params.model_copy(update={"class_weights": "auto"})
    rare = [*(row(f"the sky {word}", "blue") for word in ("a", "is", "it", "say")), row("the fire", "red")]
    weights = {one.weight for one in encode_all(tiny_base.tokenizer, rare, INSTRUCTION, auto)}
    assert weights == {5 / 8, 5 / 2}
    assert {one.weight for one in encode_all(tiny_base.tokenizer, ROWS, INSTRUCTION, auto)} == {1.0}


def test_a_batch_in_many_passes_is_the_batch_in_one(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    """Gradient accumulation: the size of micro-batches does not change the result."""
    losses = []
    for limit in (8, 64):
        seen: list[Progress] = []
        params = train_params.model_copy(update={"epochs": 3.0, "batch_size": 6, "max_packed_tokens": limit})
        train(tiny_base, ROWS, [], INSTRUCTION, params, tmp_path / str(limit), seen.append)
        losses.append([one.loss for one in seen])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_four_bits_without_bitsandbytes_are_refused(
    tiny_params: BaseParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perpetune.model.base.find_spec", lambda _: None)
    with pytest.raises(PerpetuneError, match=r"train\.method: qlora.*\n.*pip install bitsandbytes"):
        load_base(tiny_params, tmp_path, "fp32", four_bit=True)


def test_the_seed_decides(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    short = train_params.model_copy(update={"epochs": 2.0})
    digests = [
        train(
            tiny_base, ROWS, ROWS, INSTRUCTION, short.model_copy(update={"seed": seed}), tmp_path / name, lambda _: None
        ).digest
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_too_long_examples_are_left_out_and_counted(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    long = row("the " * 40, "red")
    short = train_params.model_copy(update={"epochs": 1.0})
    assert train(tiny_base, [*ROWS, long], [], INSTRUCTION, short, tmp_path, lambda _: None).too_long == 1
    with pytest.raises(PerpetuneError, match="max_example_tokens"):
        train(tiny_base, [long], [], INSTRUCTION, short, tmp_path, lambda _: None)


def test_examples_beyond_the_context_are_refused(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    tiny_base.model.config.max_position_embeddings = 5
    with pytest.raises(PerpetuneError, match=r"max_example_tokens: the base reads at most 5 tokens"):
        train(tiny_base, ROWS, [], INSTRUCTION, train_params, tmp_path, lambda _: None)


def test_tokens_without_embeddings_are_refused(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    tiny_base.tokenizer.add_tokens("leaf!")
    rows = [row("the leaf!", "green")]
    with pytest.raises(PerpetuneError, match="writes 'leaf!' as token 22, and the base has embeddings for 22 tokens"):
        train(tiny_base, rows, [], INSTRUCTION, train_params, tmp_path, lambda _: None)


def exploding(params: TrainParams, validations: int) -> TrainParams:
    """The second step multiplies two weights of 1e18, which fp32 cannot hold."""
    update = {
        "learning_rate": 1e18,
        "warmup_ratio": 0.0,
        "epochs": 4.0,
        "validations": validations,
        "max_grad_norm": 1e9,
    }
    return params.model_copy(update=update)


def test_a_training_that_explodes_keeps_the_last_good_weights(
    tiny_base: Base, train_params: TrainParams, tmp_path: Path
) -> None:
    params = exploding(train_params, validations=8)
    seen: list[Progress] = []
    trained = train(tiny_base, ROWS, ROWS, INSTRUCTION, params, tmp_path / "adapter", seen.append)
    assert trained.best_step == 1
    assert trained.steps < 8
    assert trained.validation_loss is not None and math.isfinite(trained.validation_loss)
    [note] = seen[-1].notes
    assert note.endswith("is not finite: the training stopped, and the weights of step 1 are kept")
    kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in kept.values())


def test_a_training_that_explodes_before_a_validation_is_refused(
    tiny_base: Base, train_params: TrainParams, tmp_path: Path
) -> None:
    params = exploding(train_params, validations=1)
    with pytest.raises(PerpetuneError, match=r"learning_rate: the .* is not finite, so the training stopped") as fault:
        train(tiny_base, ROWS, ROWS, INSTRUCTION, params, tmp_path / "adapter", lambda _: None)
    assert fault.value.do == "set a lower learning_rate"
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("targets", [("q_prj",), ("q_proj", "gate_up")])
def test_a_misspelt_target_module_is_refused_with_those_that_exist(
    tiny_params: BaseParams, train_params: TrainParams, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    params = train_params.model_copy(update={"lora": train_params.lora.model_copy(update={"target_modules": targets})})
    with pytest.raises(PerpetuneError, match=f"the base has no module `{targets[-1]}`") as fault:
        train(load_base(tiny_params, tmp_path, "fp32"), ROWS, [], INSTRUCTION, params, tmp_path, lambda _: None)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(fault.value.do)


def test_a_forecast_does_not_change_the_training(
    tiny_params: BaseParams, train_params: TrainParams, tmp_path: Path
) -> None:
    lora = train_params.lora.model_copy(update={"dropout": 0.2})
    params = train_params.model_copy(update={"epochs": 2.0, "lora": lora})
    digests = set()
    for name, on_forecast in (("silent", None), ("told", lambda _: None)):
        base = load_base(tiny_params, tmp_path, "fp32")
        done = train(base, ROWS, ROWS, INSTRUCTION, params, tmp_path / name, lambda _: None, on_forecast=on_forecast)
        digests.add(done.digest)
    assert len(digests) == 1

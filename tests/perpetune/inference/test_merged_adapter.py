from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from perpetune.inference import merged_adapter as merging
from perpetune.inference.merged_adapter import merge_adapter
from perpetune.inference.predictor import Predictor
from perpetune.model.adapters import trainable
from perpetune.model.base import Base
from perpetune.params import LoraParams, Method
from perpetune.records import Message

LABELS = ("blue", "green", "red")
ASKED = [
    (Message(role="system", content="which colour"), Message(role="user", content=text))
    for text in ("the sky", "a leaf", "the fire is it ?", "sea")
]
PARITY = 0.05  # release.parity_tolerance


@pytest.fixture(params=["lora", "rslora", "dora"])
def adapter(request: pytest.FixtureRequest, tiny_base: Base, tmp_path: Path) -> Path:
    method: Method = request.param
    params = LoraParams(rank=4, alpha=8, dropout=0.0, target_modules="all-linear")
    model = trainable(tiny_base, method, params, seed=1)
    for weights in model.parameters():
        if weights.requires_grad:
            weights.data.add_(torch.randn_like(weights), alpha=0.1)
    model.save_pretrained(str(tmp_path))
    model.unload()  # type: ignore[operator]
    return tmp_path


def answers(base: Base, adapter: Path, labels: tuple[str, ...] | None = LABELS) -> list[list[float] | str]:
    predictor = Predictor(base, 64)
    predictor.load_adapter("tuned", adapter)
    found = predictor.answer("tuned", ASKED, labels, 6)
    predictor.unload_adapter("tuned")
    return [list(each.probabilities.values()) if each.probabilities else each.text for each in found]


def apart(base: Base, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[float] | str]:
    with monkeypatch.context() as patch:
        patch.setattr(merging, "MERGED_BYTES", 0)
        return answers(base, adapter)


def test_a_merged_adapter_answers_as_it_does_apart(
    tiny_base: Base, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untuned = [
        list((each.probabilities or {}).values()) for each in Predictor(tiny_base, 64).answer(None, ASKED, LABELS, 4)
    ]
    wanted = apart(tiny_base, adapter, monkeypatch)
    found = answers(tiny_base, adapter)
    for mine, theirs, base in zip(found, wanted, untuned, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
        assert mine != pytest.approx(base, abs=1e-2), "the adapter changes the answers"


def test_in_bf16_the_answers_are_within_what_parity_tolerates(
    tiny_base: Base, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = answers(tiny_base, adapter)
    half = Base(tiny_base.model.to(torch.bfloat16), tiny_base.tokenizer, tiny_base.digest)  # type: ignore[arg-type]
    for mine, theirs, wanted in zip(answers(half, adapter), apart(half, adapter, monkeypatch), exact, strict=True):
        assert mine == pytest.approx(wanted, abs=PARITY)
        assert mine == pytest.approx(theirs, abs=PARITY)


def test_merging_leaves_the_base_as_it_was_and_copies_what_the_adapter_changes(tiny_base: Base, adapter: Path) -> None:
    before = {name: weight.clone() for name, weight in tiny_base.model.named_parameters()}
    model = merge_adapter(tiny_base.model, adapter)
    own = dict(model.named_parameters())
    for name, weight in tiny_base.model.named_parameters():
        assert torch.equal(weight, before[name])
        is_changed = "proj" in name
        assert (own[name].data_ptr() == weight.data_ptr()) is not is_changed, name
        assert own[name].dtype == weight.dtype
    assert not any(isinstance(layer, LoraLayer) for layer in model.modules()), "nothing of the adapter is left to run"


def test_free_text_is_that_of_the_merged_model(tiny_base: Base, adapter: Path) -> None:
    texts = answers(tiny_base, adapter, labels=None)
    assert texts == [
        each.text
        for each in Predictor(Base(merge_adapter(tiny_base.model, adapter), tiny_base.tokenizer, ""), 64).answer(
            None, ASKED, None, 6
        )
    ]

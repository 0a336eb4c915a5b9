"""Packed and fused training computes what plain transformers and peft compute row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from perpetune.training.batches import Encoded
from perpetune.training.decoder import attention
from perpetune.training.decoder.fused import FusedModel, PlainModel, summed_loss, training_network

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
FAMILY = [
    (LlamaForCausalLM, LlamaConfig),
    (MistralForCausalLM, MistralConfig),
    (Qwen2ForCausalLM, Qwen2Config),
    (Qwen3ForCausalLM, Qwen3Config),
]
PREFIX = (5, 6, 7, 8)
ROWS = [
    Encoded((*PREFIX, 11, 12, 40, 2), 6),
    Encoded((*PREFIX, 11, 13, 14, 41, 2), 7, weight=2.5),
    Encoded((*PREFIX, 11, 12, 40, 2), 6),
    Encoded((9, 3, 42, 43, 2), 2, weight=0.5),
]
CPU = torch.device("cpu")


def causal(model: Any, config: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = model(config(**SIZE)).eval()
    for name, weight in network.named_parameters():
        if "norm" in name or "bias" in name:  # ones and zeros would hide a mistake
            torch.nn.init.normal_(weight, 1.0, 0.3)
    return network


def with_adapter(network: Any, **settings: Any) -> torch.nn.Module:
    model = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", **settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, 0.0, 0.2)
    return model


def row_by_row(model: torch.nn.Module) -> torch.Tensor:
    """As plainly as it can be written: no packing, no padding, all logits."""
    total = torch.zeros(())
    for row in ROWS:
        logits = model(input_ids=torch.tensor([row.tokens])).logits[0, row.answer_from - 1 : -1]
        answer = torch.tensor(row.tokens[row.answer_from :])
        total = total + row.weight * cross_entropy(logits, answer, reduction="sum")
    return total


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def assert_equal_to_row_by_row(model: torch.nn.Module, trained: FusedModel | PlainModel) -> None:
    expected = row_by_row(model)
    expected.backward()
    wanted = gradients(model)
    loss = summed_loss(trained, ROWS, CPU)
    loss.backward()
    got = gradients(model)

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        error = (got[name] - gradient).norm() / gradient.norm()
        assert error <= 1e-5, f"{name}: {error}"


@pytest.mark.parametrize(("model", "config"), FAMILY)
@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_adapters_of_the_llama_family(model: Any, config: Any, settings: dict[str, bool]) -> None:
    adapted = with_adapter(causal(model, config), **settings)
    trained = training_network(adapted, torch.float32)
    assert isinstance(trained, FusedModel)
    assert_equal_to_row_by_row(adapted, trained)


@pytest.mark.parametrize(("model", "config"), FAMILY)
@pytest.mark.parametrize("tied", [True, False])
def test_all_weights_of_the_llama_family(model: Any, config: Any, tied: bool) -> None:
    network = model(config(**SIZE, tie_word_embeddings=tied)).eval()
    assert_equal_to_row_by_row(network, training_network(network, torch.float32))


def test_other_architectures_go_through_transformers() -> None:
    adapted = with_adapter(causal(Gemma2ForCausalLM, Gemma2Config))
    trained = training_network(adapted, torch.float32)
    assert isinstance(trained, PlainModel)
    assert_equal_to_row_by_row(adapted, trained)


@pytest.mark.parametrize(("model", "config"), [FAMILY[0], (Gemma2ForCausalLM, Gemma2Config)])
def test_gradient_checkpointing_changes_only_memory(model: Any, config: Any) -> None:
    adapted = with_adapter(causal(model, config))
    trained = training_network(adapted, torch.float32, checkpointing=True)
    trained.train()
    assert_equal_to_row_by_row(adapted, trained)


def test_many_blocks_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 3)
    adapted = with_adapter(causal(*FAMILY[0]))
    assert_equal_to_row_by_row(adapted, training_network(adapted, torch.float32))


def test_dropout_affects_only_the_adapter() -> None:
    """With everything dropped the adapter is silent, and it learns nothing."""
    network = causal(*FAMILY[0])
    silent = row_by_row(network).detach()
    adapted = with_adapter(network, lora_dropout=1.0)
    trained = training_network(adapted, torch.float32)
    trained.train()
    loss = summed_loss(trained, ROWS, CPU)
    loss.backward()
    torch.testing.assert_close(loss.detach(), silent, rtol=1e-5, atol=0)
    assert all(float(gradient.abs().sum()) == 0 for gradient in gradients(adapted).values())


def test_weights_and_rows_without_weight() -> None:
    trained = training_network(causal(*FAMILY[0]), torch.float32)
    alone = summed_loss(trained, ROWS[1:2], CPU)
    with_company = summed_loss(trained, [ROWS[1], replace(ROWS[0], weight=0.0)], CPU)
    torch.testing.assert_close(alone, with_company, rtol=1e-5, atol=0)


def test_bf16_is_close() -> None:
    network = causal(*FAMILY[0])
    exact = float(summed_loss(training_network(network, torch.float32), ROWS, CPU))
    rough = float(summed_loss(training_network(network.to(torch.bfloat16), torch.bfloat16), ROWS, CPU))
    assert rough == pytest.approx(exact, rel=0.03)

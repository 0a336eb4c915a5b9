from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from perpetune.training.packing import ancestors, groups_within, plant
from perpetune.training.trainer import Encoded, summed_loss

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = [(LlamaForCausalLM, LlamaConfig), (MistralForCausalLM, MistralConfig), (Qwen2ForCausalLM, Qwen2Config)]
PREFIX = (5, 6, 7, 8)
ROWS = [
    Encoded((*PREFIX, 11, 12, 40, 2), 6),
    Encoded((*PREFIX, 11, 13, 14, 41, 2), 7),
    Encoded((*PREFIX, 11, 12, 40, 2), 6),
    Encoded((9, 3, 42, 43, 2), 2),
]


def tiny(model: type, config: type) -> torch.nn.Module:
    torch.manual_seed(0)
    return model(config(**SIZE)).eval()


def test_equal_beginnings_are_one_path() -> None:
    tree = plant([(1, 2, 3), (1, 2, 4), (5,)])

    assert tree.tokens.tolist() == [1, 2, 3, 4, 5]
    assert tree.parents.tolist() == [-1, 0, 1, 1, -1]
    assert tree.depths.tolist() == [0, 1, 2, 2, 0]
    assert tree.paths == ((0, 1, 2), (0, 1, 3), (4,))
    assert ancestors(tree)[3].tolist() == [True, True, False, True, False]


def test_runs_hold_at_most_the_limit_and_every_sequence_once() -> None:
    sequences = [[1, 2, 3], [1, 2, 4], [7, 8, 9, 10], [1, 2, 3, 4, 5, 6]]

    runs = groups_within(sequences, 5)

    assert [index for run in runs for index in run] == [0, 1, 2, 3]
    assert all(len(run) == 1 or len(plant([sequences[index] for index in run])) <= 5 for run in runs)


@pytest.mark.parametrize(("model", "config"), MODELS)
def test_loss_and_gradients_equal_those_of_each_row_alone(model: type, config: type) -> None:
    network = tiny(model, config)

    packed = summed_loss(network, ROWS)
    packed.backward()
    gradients = [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]
    network.zero_grad()
    alone = torch.stack([summed_loss(network, [row]) for row in ROWS]).sum()
    alone.backward()
    expected = [weight.grad for weight in network.parameters() if weight.grad is not None]

    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)

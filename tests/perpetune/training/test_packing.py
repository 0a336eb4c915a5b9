from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from perpetune.inference.labels import label_log_probabilities
from perpetune.training.packing import groups_within, plant, sees
from perpetune.training.rows import Encoded

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
    assert tree.depths.tolist() == [0, 1, 2, 2, 0]
    assert tree.ends.tolist() == [4, 4, 3, 4, 5]
    assert tree.paths == ((0, 1, 2), (0, 1, 3), (4,))
    assert sees(tree, np.array([3]), np.arange(5)).tolist() == [[True, True, False, True, False]]


def test_runs_hold_at_most_the_limit_and_every_sequence_once() -> None:
    sequences = [[1, 2, 3], [1, 2, 4], [7, 8, 9, 10], [1, 2, 3, 4, 5, 6]]

    runs = groups_within(sequences, 5)

    assert [index for run in runs for index in run] == [0, 1, 2, 3]
    assert all(len(run) == 1 or len(plant([sequences[index] for index in run])) <= 5 for run in runs)


@pytest.mark.parametrize(("model", "config"), MODELS)
def test_all_labels_in_one_pass_equal_each_label_alone(model: type, config: type) -> None:
    network = tiny(model, config)
    prompts = [(*PREFIX, 11), (*PREFIX, 12, 13)]
    labels = [(40, 2), (40, 41, 2), (50, 2)]

    found = label_log_probabilities(network, prompts, labels)

    for row, prompt in enumerate(prompts):
        for column, label in enumerate(labels):
            with torch.no_grad():
                logits = network(torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
            alone = sum(float(logits[len(prompt) - 1 + step, token]) for step, token in enumerate(label))
            assert float(found[row, column]) == pytest.approx(alone, rel=1e-4)

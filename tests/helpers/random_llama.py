"""A random Llama of two small layers, the same for the same arguments."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def random_llama(words: int, *, positions: int, eos: int, layers: int = 2, spread: float = 0.02) -> LlamaForCausalLM:
    """A model of `words` tokens and `positions`; `spread` is the standard deviation of its weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        eos_token_id=eos,
        bos_token_id=None,
        initializer_range=spread,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)

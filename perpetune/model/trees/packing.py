"""How rows may be packed for a model: into token trees, or each by itself.

A tree needs a model whose layers have no state but keys and values, whose positions and masks are inputs, and whose
frequencies do not depend on a row's length. Configs say this of known architectures; of others it is tried with a few
tokens, because a state that leaks from row to row only makes answers wrong.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from perpetune.errors import PerpetuneError
from perpetune.model.trees.attention_masks import CHUNKED, FULL, SLIDING, attention_masks, layer_kinds, sliding_window
from perpetune.model.trees.token_tree import Tree, build_tree, is_visible, model_inputs

# Architectures with fused layers in training. They need no trial.
FUSED = ("llama", "mistral", "qwen2", "qwen3")
# Architectures whose windows are tested against transformers, row by row (tests/perpetune/model/test_architectures.py).
WINDOWED = (
    *FUSED,
    "cohere2",
    "cwm",
    "exaone4",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gpt_oss",
    "llama4_text",
    "ministral",
    "ministral3",
    "mixtral",
    "olmo3",
    "phi3",
    "phimoe",
    "qwen2_moe",
    "qwen3_moe",
    "starcoder2",
    "vaultgemma",
)
KNOWN_WINDOWS = {
    "sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "_sliding_window_pattern",
    "attention_chunk_size",
}
UNKNOWN_WINDOW = re.compile(r"window|chunk_size|block_size|sparse_attention")
NO_WINDOW = {"use_sliding_window", "chunk_size_feed_forward"}

# Relative errors of logits: in fp32 of any token; in 16 bits, whose rounding also sends tokens to other experts, the
# median of a row. There they were 0.006 in trees that are right, and 0.1 if positions were those of the tree.
TOLERANCE = 1e-3
ROUGH_TOLERANCE = 0.05
SHARED, OWN, ROWS = 3, 14, 3  # tokens of the common prefix, of each row after it, and rows


def longest_in_tree(model: PreTrainedModel) -> float:
    """The length in tokens up to which a row may be in a tree with others; 0 if the model reads each row by itself.

    Raises PerpetuneError if transformers cannot run the model, or if it is not causal.
    """
    longest = longest_by_config(model)
    if model.config.model_type in FUSED:
        return longest
    trains = model.training
    model.eval()  # dropout would differ
    try:
        rows, alone = _alone(model)
        return longest if longest and _trees_equal_rows(model, rows, alone) else 0
    finally:
        model.train(trains)


def longest_by_config(model: PreTrainedModel) -> float:
    """`longest_in_tree` as far as the model's config and class tell, which need no weights."""
    if model.config.model_type not in FUSED and (_has_state(model) or _has_unknown_windows(model.config)):
        return 0
    return min(_longest_of_one_rotation(model.config), _longest_in_window(model.config))


def _longest_of_one_rotation(config: PreTrainedConfig) -> float:
    """Longrope turns longer rows with other factors (Ding et al. 2024, LongRoPE, arXiv:2402.13753)."""
    text: Any = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    lengths = [
        float(kind.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", 0) or 0)
        for kind in kinds
        if kind.get("rope_type") == "longrope"
    ]
    return min(lengths, default=math.inf)


def _longest_in_window(config: PreTrainedConfig) -> float:
    """Windows are only a config's word: in an untested architecture a row is in a tree if it is within the window."""
    text: Any = config.get_text_config()
    chunk = getattr(text, "attention_chunk_size", None) if CHUNKED in layer_kinds(config) else None
    windows = [length for length in (sliding_window(config), chunk) if length]
    return math.inf if text.model_type in WINDOWED else min(windows, default=math.inf)


def _has_state(model: PreTrainedModel) -> bool:
    """Whether layers carry a state from token to token: linear attention, state spaces, convolutions."""
    return bool(model._is_stateful) or not layer_kinds(model.config) <= {FULL, SLIDING, CHUNKED}


def _has_unknown_windows(config: PreTrainedConfig) -> bool:
    return any(
        UNKNOWN_WINDOW.search(name) and name not in KNOWN_WINDOWS | NO_WINDOW and isinstance(value, int) and value > 0
        for name, value in config.get_text_config().to_dict().items()
    )


@torch.inference_mode()
def _trees_equal_rows(model: PreTrainedModel, rows: list[list[int]], alone: list[Tensor]) -> bool:
    """Whether the logits of a small tree are those of its rows, read at once and after a cached prefix."""
    tree = build_tree(rows)
    inputs = model_inputs(tree, model.config, model.device, model.dtype)
    try:
        packed = [model(**inputs, use_cache=False).logits[0], _in_two_parts(model, tree)]
    except Exception:  # what a model that takes no such mask raises is its own choice
        return False
    errors = [
        _errors(logits[list(path)], wanted) for logits in packed for path, wanted in zip(tree.paths, alone, strict=True)
    ]
    return _is_equal(torch.cat(errors), model.dtype)


def _in_two_parts(model: PreTrainedModel, tree: Tree) -> Tensor:
    """The logits of a tree whose first tokens are read before the others."""
    cache, device = DynamicCache(), model.device
    visible = torch.from_numpy(is_visible(tree, np.arange(len(tree)), np.arange(len(tree)))).to(device)
    depths, tokens = (torch.from_numpy(part).to(device) for part in (tree.depths, tree.tokens))
    logits = []
    for part in (slice(0, SHARED), slice(SHARED, len(tree))):
        masks = attention_masks(
            model.config, visible[part, : part.stop], depths[part], depths[: part.stop], model.dtype
        )
        output = model(
            input_ids=tokens[None, part],
            position_ids=depths[None, part],
            attention_mask=masks,
            past_key_values=cache,
            use_cache=True,
        )
        logits.append(output.logits[0])
    return torch.cat(logits)


@torch.inference_mode()
def _alone(model: PreTrainedModel) -> tuple[list[list[int]], list[Tensor]]:
    """A few rows of random tokens with a common prefix, and their logits."""
    generator = torch.Generator().manual_seed(0)
    words = int(model.config.get_text_config().vocab_size)
    sample = torch.randint(words // 4, words // 2, (SHARED + ROWS * OWN,), generator=generator)  # hardly control tokens
    rows = [[*sample[:SHARED].tolist(), *own.tolist()] for own in sample[SHARED:].split(OWN)]
    try:
        alone = [model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0] for row in rows]
    except Exception as fault:
        raise PerpetuneError(
            f"transformers cannot run this {model.config.model_type}: {type(fault).__name__}: {fault}",
            where="params.yaml: base.model",
            do="use another base model, or another version of transformers",
        ) from fault
    if not all(bool(logits.isfinite().all()) for logits in alone):
        raise PerpetuneError(
            f"the scores of this {model.config.model_type} are not finite",
            where="params.yaml: base.model",
            do="fetch its weights again; if it was made for another precision, set train.precision: fp32",
        )
    shared = [_errors(logits[:SHARED], alone[0][:SHARED]) for logits in alone[1:]]
    if not _is_equal(torch.cat(shared), model.dtype):
        raise PerpetuneError(
            f"this {model.config.model_type} is no causal language model: its scores depend on the tokens that follow",
            where="params.yaml: base.model",
            do="use a base model that is trained to predict the next token",
        )
    return rows, alone


def are_equal_logits(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits (tokens, vocabulary) of a model in this precision are the same but for rounding."""
    return _is_equal(_errors(found, wanted), dtype)


def _errors(found: Tensor, wanted: Tensor) -> Tensor:
    """The relative error of each token's logits (tokens,)."""
    found, wanted = found.float(), wanted.float()
    spread: Tensor = torch.linalg.vector_norm(wanted - wanted.mean(-1, keepdim=True), dim=-1)
    distance: Tensor = torch.linalg.vector_norm(found - wanted, dim=-1)
    return distance / spread.clamp(min=1e-6)


def _is_equal(errors: Tensor, dtype: torch.dtype) -> bool:
    if dtype == torch.float32:
        return bool((errors <= TOLERANCE).all())
    return float(errors.median()) <= ROUGH_TOLERANCE

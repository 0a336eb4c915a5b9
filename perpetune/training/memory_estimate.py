"""Estimate the memory of a training before anything is loaded.

It is the sum of the base's weights, the trained weights with gradients and AdamW's two moments, the activations that each
layer saves for the backward pass, and the largest intermediate tensor. The formulas follow `kernels.py` and
`attention.py`; for other architectures they are scaled by a measured factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from perpetune.errors import PerpetuneError
from perpetune.model.base import torch_dtype
from perpetune.model.lora_targets import adapted_experts, adapted_layers, linear_layers, lora_targets
from perpetune.model.loss import LOGIT_ROWS
from perpetune.model.parts import blocks_of
from perpetune.model.trees.packing import FUSED, longest_by_config
from perpetune.model.weights import first_line
from perpetune.params import BaseParams, TrainParams
from perpetune.training.batches import Encoded, batches, pack_rows, tree_size
from perpetune.training.decoder.attention import BLOCK
from perpetune.training.free_memory import free_bytes
from perpetune.training.recipe import batch_size

SAMPLE_STEPS = 200  # steps searched for the largest micro-batch
FOUR_BITS = 0.516  # bytes of a weight in NF4 with double quantization (QLoRA, section 3)
# Measured: activations of transformers' layers, with casts, repeated keys and a dense mask, relative to the fused ones.
UNFUSED = 2.5
# Measured: with gradient checkpointing, a CPU's fragmented heap holds the activations of up to so many layers.
HEAP_FRAGMENTATION = 5
GB = 1e9


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a training in bytes, by kind, and the free memory of the device."""

    weights: int
    trained: int
    activations: int
    free: int
    device: str

    @property
    def needed(self) -> int:
        return self.weights + self.trained + self.activations


@dataclass(frozen=True)
class Shape:
    """The sizes of an architecture that determine its memory. `adapted` are the parameters of an adapter of rank 1.

    Rows longer than `longest_in_tree` share no tokens. `notes` are what a user should know of the adapter.
    """

    parameters: int
    linear: int
    adapted: int
    adapters: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int
    words: int
    fused: bool
    longest_in_tree: float = math.inf
    notes: tuple[str, ...] = ()


def shape_of(config: PreTrainedConfig, targets: tuple[str, ...] | str) -> Shape:
    """The shape of a model from its config, without loading weights.

    Raises PerpetuneError if transformers does not know the architecture, or a target module is not in it.
    """
    model = _without_weights(config)
    adapter = lora_targets(model, targets)
    linears = list(linear_layers(model).values())
    chosen = adapted_layers(model, adapter)
    experts = adapted_experts(model, adapter)
    note = adapter.note()
    text: Any = config.get_text_config()
    hidden = int(text.hidden_size)
    heads = getattr(text, "num_attention_heads", None) or 1
    size = getattr(text, "head_dim", None) or hidden // heads
    return Shape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        linear=sum(_weight(layer).numel() for layer in linears),
        adapted=sum(sum(_weight(layer).shape) for layer in chosen) + sum(len(w) * sum(w.shape[1:]) for w in experts),
        adapters=len(chosen) + len(experts),
        layers=len(blocks_of(model)),
        hidden=hidden,
        inner=_inner_width(text, linears),
        queries=heads * size,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * size,
        heads=heads,
        words=text.vocab_size,
        fused=config.model_type in FUSED,
        longest_in_tree=longest_by_config(model),
        notes=() if note is None else (note,),
    )


def _without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, ImportError) as fault:
        raise PerpetuneError(
            f"transformers has no causal language model for this {config.model_type}: {first_line(fault)}",
            where="params.yaml: base.model",
            do="use another base model, or a version of transformers that knows it",
        ) from fault
    assert isinstance(model, PreTrainedModel)
    return model


def _weight(layer: nn.Module) -> torch.Tensor:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _inner_width(text: Any, linears: Sequence[nn.Module]) -> int:
    """The width between the two halves of a layer's network, which not every config names."""
    named = getattr(text, "intermediate_size", None)
    if isinstance(named, list):
        return max(map(int, named))
    return int(named or max(max(_weight(layer).shape) for layer in linears))


def estimate_memory(
    shape: Shape, params: TrainParams, rows: Sequence[Encoded], *, validates: bool, processes: int = 1
) -> MemoryEstimate:
    """The memory that training on these rows needs on each process's device; FSDP shards the weights."""
    compute = torch_dtype(params.precision).itemsize
    on_cpu = not torch.cuda.is_available()
    trained = shape.parameters if params.method == "full" else shape.adapted * params.lora.rank
    weights = {
        "full": 0,
        "qlora": round(FOUR_BITS * shape.linear) + compute * (shape.parameters - shape.linear),
    }.get(params.method, compute * shape.parameters)
    # Weight, gradient and two moments in fp32; on a CPU the best weights are in the same memory.
    held = 4 * trained * (5 if on_cpu and validates else 4)
    if params.method == "full" and compute < 4:
        held += compute * trained  # bf16 copies saved for the backward pass
    tokens = _largest_pass(rows, params, processes, shape.longest_in_tree)
    return MemoryEstimate(
        weights // processes,
        held // processes,
        _activations(shape, params, tokens, compute, on_cpu),
        free_bytes(),
        "this machine" if on_cpu else f"this GPU ({torch.cuda.get_device_name()})",
    )


def _largest_pass(rows: Sequence[Encoded], params: TrainParams, processes: int, longest_in_tree: float) -> int:
    """Tokens of the largest micro-batch."""
    size = batch_size(params, len(rows))
    sample = islice(batches(rows, size, params.seed), min(SAMPLE_STEPS, math.ceil(len(rows) / size)))
    runs = (
        run
        for batch in sample
        for run in pack_rows(batch[::processes], params.max_packed_tokens, longest_in_tree, one_by_one=processes > 1)
    )
    return max(tree_size(run, longest_in_tree) for run in runs)


def _activations(shape: Shape, params: TrainParams, tokens: int, compute: int, on_cpu: bool) -> int:
    rank = 0 if params.method == "full" else params.lora.rank
    # Per token: inputs and outputs of two norms; q, k, v; attention output; gate, up and their product.
    numbers = 4 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 3 * shape.inner
    numbers += rank * shape.adapters // shape.layers
    # On a CPU also the attention weights of a block's queries to the prefix and themselves.
    numbers += shape.heads * min(tokens, 2 * BLOCK) if on_cpu else shape.queries
    layer = compute * tokens * numbers
    if not shape.fused:
        layer = round(layer * UNFUSED)
    kept = shape.layers * layer
    if params.gradient_checkpointing:
        recomputed = HEAP_FRAGMENTATION if on_cpu else 1  # layers in memory
        kept = shape.layers * compute * tokens * shape.hidden + recomputed * layer
    intermediate = compute * tokens * 6 * shape.inner
    logits = min(tokens, LOGIT_ROWS) * shape.words * (4 + compute)
    return kept + max(intermediate, logits)


def refuse_if_too_small(memory: MemoryEstimate, base: BaseParams, shape: Shape, params: TrainParams) -> None:
    """Raises PerpetuneError, with settings that would need less, if the training does not fit into memory."""
    if memory.needed <= memory.free:
        return
    size = f"{shape.parameters / 1e9:.1f}B" if shape.parameters >= 1e9 else f"{shape.parameters / 1e6:.0f}M"
    dtype = {2: "bf16", 4: "fp32"}[torch_dtype(params.precision).itemsize]
    raise PerpetuneError(
        f"training {base.model} ({size}, {dtype}, {params.method}) needs {memory.needed / GB:.1f} GB "
        f"({memory.weights / GB:.1f} for the base, {memory.trained / GB:.1f} for trained weights and optimizer, "
        f"{memory.activations / GB:.1f} for activations), and {memory.device} has {memory.free / GB:.1f} GB free",
        where="params.yaml: train",
        do=_advice(memory, params),
    )


def _advice(memory: MemoryEstimate, params: TrainParams) -> str:
    """The first setting that would help."""
    if params.method == "full" and memory.trained > memory.free / 2:
        return "set method: lora, or train in more processes"
    if memory.activations > memory.needed / 3 and not params.gradient_checkpointing:
        return "set gradient_checkpointing: true, or halve max_packed_tokens"
    if params.method != "qlora" and memory.weights > memory.free / 2 and torch.cuda.is_available():
        return "set method: qlora"
    if memory.activations > memory.needed / 3:
        return "halve max_packed_tokens"
    return "use a smaller base model, or a machine with more memory"

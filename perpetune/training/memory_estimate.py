"""Whether a run fits into the memory at hand, told before anything is loaded.

What a run holds is known: the base's weights, what is trained with its gradients and AdamW's two moments, what
each layer keeps of a pass for its gradient, and the largest thing computed in between. The formulas follow
`kernels.py` and `attention.py`; for architectures outside the fused family they are an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psutil
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from perpetune.errors import PerpetuneError
from perpetune.model.base import torch_dtype
from perpetune.model.loss import LOGIT_ROWS
from perpetune.params import BaseParams, TrainParams
from perpetune.training.batches import Encoded, batches, packed, pass_size
from perpetune.training.decoder.attention import BLOCK
from perpetune.training.decoder.fused import FUSED
from perpetune.training.recipe import batch_size

STEPS_LOOKED_AT = 200  # each epoch deals the rows anew, so the largest pass of these is that of nearly all
FOUR_BITS = 0.516  # bytes of a weight in NF4 with double quantization (QLoRA, section 3)
# Measured: what transformers' own layers keep, with casts, repeated keys and a dense mask, over what ours keep.
UNFUSED = 2.5
# Measured: a CPU's heap does not give the room of one layer to the next as a GPU's allocator does; it holds up to
# so many of those that are computed again.
HEAP_IN_PIECES = 5
GB = 1e9


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak bytes that a run adds to the process, by what holds them, and the bytes that are free for it."""

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
    """What of an architecture decides its memory. `adapted` are the parameters of an adapter of rank 1."""

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


def shape_of(config: PreTrainedConfig, targets: tuple[str, ...] | str) -> Shape:
    """Read from the model's config alone: no weights are loaded."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    chosen = [m for name, m in linears.items() if targets == "all-linear" or name.rpartition(".")[2] in targets]
    text: Any = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        linear=sum(m.weight.numel() for m in linears.values()),
        adapted=sum(m.in_features + m.out_features for m in chosen),
        adapters=len(chosen),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=text.intermediate_size,
        queries=text.num_attention_heads * size,
        keys=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * size,
        heads=text.num_attention_heads,
        words=text.vocab_size,
        fused=config.model_type in FUSED,
    )


def estimate_memory(
    shape: Shape, params: TrainParams, rows: Sequence[Encoded], *, validates: bool, processes: int = 1
) -> MemoryEstimate:
    """What training on these rows needs of each process's device; FSDP spreads weights over the processes."""
    compute = torch_dtype(params.precision).itemsize
    on_cpu = not torch.cuda.is_available()
    trained = shape.parameters if params.method == "full" else shape.adapted * params.lora.rank
    weights = {
        "full": 0,
        "qlora": round(FOUR_BITS * shape.linear) + compute * (shape.parameters - shape.linear),
    }.get(params.method, compute * shape.parameters)
    # Weight, gradient and two moments in fp32; on a CPU the best weights lie in the same memory.
    held = 4 * trained * (5 if on_cpu and validates else 4)
    if params.method == "full" and compute < 4:
        held += compute * trained  # the pass multiplies with rounded copies, kept for the gradient
    tokens = _largest_pass(rows, params, processes)
    return MemoryEstimate(
        weights // processes,
        held // processes,
        _activations(shape, params, tokens, compute, on_cpu),
        free_bytes(),
        "this machine" if on_cpu else f"this GPU ({torch.cuda.get_device_name()})",
    )


def _largest_pass(rows: Sequence[Encoded], params: TrainParams, processes: int) -> int:
    """Tokens of the largest forward pass."""
    size = batch_size(params, len(rows))
    looked_at = islice(batches(rows, size, params.seed), min(STEPS_LOOKED_AT, math.ceil(len(rows) / size)))
    passes = (run for batch in looked_at for run in packed(batch[::processes], params.max_packed_tokens))
    return max(map(pass_size, passes))


def _activations(shape: Shape, params: TrainParams, tokens: int, compute: int, on_cpu: bool) -> int:
    rank = 0 if params.method == "full" else params.lora.rank
    # Per token: two norms' inputs and outputs; q, k, v; what attention gives; gate, up and their product.
    numbers = 4 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 3 * shape.inner
    numbers += rank * shape.adapters // shape.layers
    # On a CPU also the attention weights: a block's queries see the prefix and themselves.
    numbers += shape.heads * min(tokens, 2 * BLOCK) if on_cpu else shape.queries
    layer = compute * tokens * numbers
    if not shape.fused:
        layer = round(layer * UNFUSED)
    kept = shape.layers * layer
    if params.gradient_checkpointing:
        again = HEAP_IN_PIECES if on_cpu else 1  # times the layer that is computed again
        kept = shape.layers * compute * tokens * shape.hidden + again * layer
    passing = compute * tokens * 6 * shape.inner
    logits = min(tokens, LOGIT_ROWS) * shape.words * (4 + compute)
    return kept + max(passing, logits)


def free_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def refuse_if_too_small(memory: MemoryEstimate, base: BaseParams, shape: Shape, params: TrainParams) -> None:
    """Raises PerpetuneError with what would fit, where the run does not."""
    if memory.needed <= memory.free:
        return
    size = f"{shape.parameters / 1e9:.1f}B" if shape.parameters >= 1e9 else f"{shape.parameters / 1e6:.0f}M"
    dtype = {2: "bf16", 4: "fp32"}[torch_dtype(params.precision).itemsize]
    raise PerpetuneError(
        f"{base.model}, {size} in {dtype} by {params.method}, needs {memory.needed / GB:.1f} GB ({memory.weights / GB:.1f} for "
        f"the base, {memory.trained / GB:.1f} for what is trained, {memory.activations / GB:.1f} for a pass), and "
        f"{memory.device} has {memory.free / GB:.1f} free",
        where="params.yaml: train",
        do=_advice(memory, params),
    )


def _advice(memory: MemoryEstimate, params: TrainParams) -> str:
    """The first of what helps that is not yet done."""
    if params.method == "full" and memory.trained > memory.free / 2:
        return "set method: lora, or train in more processes"
    if memory.activations > memory.needed / 3 and not params.gradient_checkpointing:
        return "set gradient_checkpointing: true, or halve max_packed_tokens"
    if params.method != "qlora" and memory.weights > memory.free / 2 and torch.cuda.is_available():
        return "set method: qlora"
    if memory.activations > memory.needed / 3:
        return "halve max_packed_tokens"
    return "take a smaller base model, or a machine with more memory"

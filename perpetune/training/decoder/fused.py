"""A causal language model as the trainer needs it: from a token tree to the loss of its answers.

`FusedModel` runs the layers of the Llama family (Llama, Mistral, Qwen 2 and 3) over a tree's tokens with the
functions of `kernels.py` and `attention.py`; `PlainModel` asks transformers' own forward pass, which knows every
other architecture, with a dense mask. Both hold the very modules of the model that they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from perpetune.model.label_head import LabelHead, features
from perpetune.model.loss import chunked_cross_entropy, plain_cross_entropy
from perpetune.model.token_tree import Tree, build_tree, model_inputs
from perpetune.training.batches import Encoded
from perpetune.training.decoder.attention import Plan, attend, plan
from perpetune.training.decoder.kernels import lora_linear, rms_norm, rotated, silu_gated

FUSED = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class TokenTargets:
    """At each of `positions` (m,) of a tree one of `tokens` (m,) is to come, and counts as much as its weight (m,)."""

    positions: Tensor
    tokens: Tensor
    weights: Tensor


@dataclass(frozen=True)
class LabelTargets:
    """The labels (rows,) of prompts whose tokens stand at `paths` in a tree, and their weights (rows,)."""

    paths: Sequence[Sequence[int]]
    labels: Tensor
    weights: Tensor


@dataclass(frozen=True)
class JudgedLabels(LabelTargets):
    """Asks for the loss of the labels at each of the temperatures that a validation tries, instead of one to learn from."""


@dataclass(frozen=True)
class Features:
    """Asks for what a label head reads of the prompts at `paths`, instead of a loss."""

    paths: Sequence[Sequence[int]]


Targets = TokenTargets | LabelTargets | Features


def learner(
    model: nn.Module, compute: torch.dtype, *, checkpointing: bool = False, label_head: LabelHead | None = None
) -> FusedModel | PlainModel:
    """The fastest way to train `model`, which may be a PeftModel; activations have the dtype `compute`."""
    causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if causal.config.model_type in FUSED and causal.config.hidden_act == "silu":
        return FusedModel(causal, compute, checkpointing, label_head)
    return PlainModel(causal, compute, checkpointing, label_head)


def summed_loss(model: FusedModel | PlainModel, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """Cross-entropy summed over the answer tokens of the rows, or over their labels, in one packed pass."""
    tree = build_tree(row.read for row in rows)
    targets = _label_targets(rows, tree, device) if model.label_head else _token_targets(rows, tree, device)
    loss: Tensor = model(tree, targets, device)
    return loss


def losses_by_temperature(model: FusedModel | PlainModel, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """Cross-entropy summed over the labels of the rows, at each of `TEMPERATURES`, in one packed pass."""
    tree = build_tree(row.read for row in rows)
    targets = _label_targets(rows, tree, device)
    losses: Tensor = model(tree, JudgedLabels(targets.paths, targets.labels, targets.weights), device)
    return losses


def prompt_features(model: FusedModel | PlainModel, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """What a label head reads of the rows, (rows, 2 * size) in fp32, in one packed pass."""
    tree = build_tree(row.read for row in rows)
    found: Tensor = model(tree, Features(tree.paths), device)
    return found


def _token_targets(rows: Sequence[Encoded], tree: Tree, device: torch.device) -> TokenTargets:
    positions = [
        position for row, path in zip(rows, tree.paths, strict=True) for position in path[row.answer_from - 1 :]
    ]
    tokens = [token for row in rows for token in row.tokens[row.answer_from :]]
    weights = [row.weight for row in rows for _ in row.tokens[row.answer_from :]]
    return TokenTargets(
        torch.tensor(positions, device=device),
        torch.tensor(tokens, device=device),
        torch.tensor(weights, device=device, dtype=torch.float32),
    )


def _label_targets(rows: Sequence[Encoded], tree: Tree, device: torch.device) -> LabelTargets:
    return LabelTargets(
        tree.paths,
        torch.tensor([row.label for row in rows], device=device),
        torch.tensor([row.weight for row in rows], device=device, dtype=torch.float32),
    )


def _judged_by(head: LabelHead | None, hidden: Tensor, targets: LabelTargets | Features) -> Tensor:
    """The loss of the labels, or what the head reads, from the last hidden states (n, size) of all tokens."""
    assert head is not None, "labels are learned by a label head"
    found = features(hidden, targets.paths, head.shape.input_from)
    if isinstance(targets, Features):
        return found
    if isinstance(targets, JudgedLabels):
        return head.losses_by_temperature(found, targets.labels, targets.weights)
    return head.summed_loss(found, targets.labels, targets.weights)


class PlainModel(nn.Module):
    """Any causal language model of transformers."""

    def __init__(
        self, causal: nn.Module, compute: torch.dtype, checkpointing: bool, label_head: LabelHead | None = None
    ) -> None:
        super().__init__()
        self.causal = causal
        self.compute = compute
        self.label_head = label_head
        if checkpointing:
            cast(Any, causal).gradient_checkpointing_enable({"use_reentrant": False})

    def blocks(self) -> list[nn.Module]:
        return list(cast(Any, self.causal).get_decoder().layers)

    def forward(self, tree: Tree, targets: Targets, device: torch.device) -> Tensor:
        inputs = model_inputs(tree, device, self.compute)
        with torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32):
            if isinstance(targets, TokenTargets):
                logits = self.causal(**inputs, logits_to_keep=targets.positions).logits[0]
            else:
                hidden = cast(Any, self.causal).get_decoder()(**inputs).last_hidden_state[0]
        if isinstance(targets, TokenTargets):
            return plain_cross_entropy(logits, targets.tokens, targets.weights)
        return _judged_by(self.label_head, hidden, targets)


class FusedModel(nn.Module):
    """A decoder of the Llama family over the tokens of a tree, without batch or padding: (n, size)."""

    def __init__(
        self, causal: nn.Module, compute: torch.dtype, checkpointing: bool, label_head: LabelHead | None = None
    ) -> None:
        super().__init__()
        decoder, head = cast(Any, causal).get_decoder(), cast(Any, causal).get_output_embeddings()
        self.embedding = decoder.embed_tokens
        self.layers = nn.ModuleList(FusedLayer(layer) for layer in decoder.layers)
        self.norm, self.head, self.angles = decoder.norm, head, decoder.rotary_emb
        self.compute, self.checkpointing, self.label_head = compute, checkpointing, label_head

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def forward(self, tree: Tree, targets: Targets, device: torch.device) -> Tensor:
        hidden = self.embedding(torch.from_numpy(tree.tokens).to(device)).to(self.compute)
        angles = _angles(self.angles, hidden, torch.from_numpy(tree.depths).to(device))
        who_sees = plan(tree, device, self.compute)
        for layer in self.layers:
            if self.checkpointing and self.training:
                hidden = checkpoint(layer, hidden, angles, who_sees, use_reentrant=False)
            else:
                hidden = layer(hidden, angles, who_sees)
        if not isinstance(targets, TokenTargets):
            return _judged_by(self.label_head, _normed(self.norm, hidden), targets)
        final = _normed(self.norm, hidden[targets.positions])
        if _is_adapted(self.head):
            return plain_cross_entropy(_projected(self.head, final), targets.tokens, targets.weights)
        return chunked_cross_entropy(final, self.head.weight, targets.tokens, targets.weights)


class FusedLayer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, angles: tuple[Tensor, Tensor], who_sees: Plan) -> Tensor:
        layer = cast(Any, self.layer)
        hidden = hidden + _attention(layer.self_attn, _normed(layer.input_layernorm, hidden), angles, who_sees)
        inner = _normed(layer.post_attention_layernorm, hidden)
        mlp = layer.mlp
        gated = silu_gated(_projected(mlp.gate_proj, inner), _projected(mlp.up_proj, inner))
        return hidden + _projected(mlp.down_proj, gated)


def _attention(module: Any, x: Tensor, angles: tuple[Tensor, Tensor], who_sees: Plan) -> Tensor:
    by_head = (len(x), -1, module.head_dim)
    q = _projected(module.q_proj, x).view(by_head)
    k = _projected(module.k_proj, x).view(by_head)
    v = _projected(module.v_proj, x).view(by_head)
    if hasattr(module, "q_norm"):
        q, k = _normed(module.q_norm, q), _normed(module.k_norm, k)
    seen = attend(rotated(q, *angles), rotated(k, *angles), v, module.scaling, who_sees)
    return _projected(module.o_proj, seen.reshape(len(x), -1))


def _angles(rotary: nn.Module, hidden: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of each token's angles, shape (n, 1, size), the first half of the sines negated."""
    cosine, sine = rotary(hidden[None], depths[None])
    half = sine.shape[-1] // 2
    return cosine[0, :, None], torch.cat((-sine[0, :, :half], sine[0, :, half:]), -1)[:, None]


def _normed(module: Any, x: Tensor) -> Tensor:
    return rms_norm(x, module.weight, module.variance_epsilon)


def _projected(module: Any, x: Tensor) -> Tensor:
    """What a linear layer makes of x, with its adapter where it has one."""
    if type(module) is nn.Linear:
        bias = module.bias
        return linear(x, module.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    if not _is_adapted(module) or module.lora_variant or module.disable_adapters or module.merged:
        return cast(Tensor, module(x))
    active = module.active_adapters[0]
    down, up, dropout = module.lora_A[active].weight, module.lora_B[active].weight, module.lora_dropout[active]
    dropped = dropout(x) if module.training and not isinstance(dropout, nn.Identity) else None
    return lora_linear(x, dropped, module.get_base_layer(), down, up, module.scaling[active])


def _is_adapted(module: Any) -> bool:
    return isinstance(module, LoraLayer)

"""Causal language models for the trainer: from a token tree to the loss of its answers.

`FusedModel` runs the layers of the Llama family (Llama, Mistral, Qwen 2 and 3) over a tree's tokens with the functions of
`kernels.py` and `attention.py`; `PlainModel` uses transformers' forward pass with a dense mask, for every other
architecture. Both share the modules of the model that they wrap.
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
from perpetune.training.decoder.attention import AttentionPlan, attend, plan
from perpetune.training.decoder.kernels import lora_linear, rms_norm, rotated, silu_gated

FUSED = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class TokenTargets:
    """The next tokens (m,) at `positions` (m,) of a tree, with weights (m,)."""

    positions: Tensor
    tokens: Tensor
    weights: Tensor


@dataclass(frozen=True)
class LabelTargets:
    """The labels (rows,) of prompts whose tokens are at `paths` in a tree, with weights (rows,)."""

    paths: Sequence[Sequence[int]]
    labels: Tensor
    weights: Tensor


@dataclass(frozen=True)
class TemperatureTargets(LabelTargets):
    """Label targets whose loss is computed at each of `TEMPERATURES`, for validation."""


@dataclass(frozen=True)
class Features:
    """Prompts at `paths` of which the label head's features are computed instead of a loss."""

    paths: Sequence[Sequence[int]]


Targets = TokenTargets | LabelTargets | Features


def training_network(
    model: nn.Module, compute: torch.dtype, *, checkpointing: bool = False, label_head: LabelHead | None = None
) -> FusedModel | PlainModel:
    """The fastest network to train `model`, which may be a PeftModel; activations have the dtype `compute`."""
    causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if causal.config.model_type in FUSED and causal.config.hidden_act == "silu":
        return FusedModel(causal, compute, checkpointing, label_head)
    return PlainModel(causal, compute, checkpointing, label_head)


def summed_loss(model: FusedModel | PlainModel, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """Cross-entropy summed over the answer tokens of the rows, or over their labels, in one packed forward pass."""
    tree = build_tree(row.inputs for row in rows)
    targets = _label_targets(rows, tree, device) if model.label_head else _token_targets(rows, tree, device)
    loss: Tensor = model(tree, targets, device)
    return loss


def losses_by_temperature(model: FusedModel | PlainModel, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """Cross-entropy summed over the labels of the rows, at each of `TEMPERATURES`, shape (temperatures,)."""
    tree = build_tree(row.inputs for row in rows)
    targets = _label_targets(rows, tree, device)
    losses: Tensor = model(tree, TemperatureTargets(targets.paths, targets.labels, targets.weights), device)
    return losses


def prompt_features(model: FusedModel | PlainModel, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """The label head's features of the rows, (rows, 2 * size) in fp32."""
    tree = build_tree(row.inputs for row in rows)
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


def _label_loss(head: LabelHead | None, hidden: Tensor, targets: LabelTargets | Features) -> Tensor:
    """The loss of the labels, or the head's features, from the last hidden states (n, size) of all tokens."""
    assert head is not None, "label targets need a label head"
    found = features(hidden, targets.paths, head.shape.input_from)
    if isinstance(targets, Features):
        return found
    if isinstance(targets, TemperatureTargets):
        return head.losses_by_temperature(found, targets.labels, targets.weights)
    return head.summed_loss(found, targets.labels, targets.weights)


class PlainModel(nn.Module):
    """Any causal language model of transformers over a token tree."""

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
        return _label_loss(self.label_head, hidden, targets)


class FusedModel(nn.Module):
    """A decoder of the Llama family over the tokens of a tree, with hidden states (n, size) without batch and padding."""

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
        attention_plan = plan(tree, device, self.compute)
        for layer in self.layers:
            if self.checkpointing and self.training:
                hidden = checkpoint(layer, hidden, angles, attention_plan, use_reentrant=False)
            else:
                hidden = layer(hidden, angles, attention_plan)
        if not isinstance(targets, TokenTargets):
            return _label_loss(self.label_head, _normed(self.norm, hidden), targets)
        final = _normed(self.norm, hidden[targets.positions])
        if _is_adapted(self.head):
            return plain_cross_entropy(_projected(self.head, final), targets.tokens, targets.weights)
        return chunked_cross_entropy(final, self.head.weight, targets.tokens, targets.weights)


class FusedLayer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, angles: tuple[Tensor, Tensor], attention_plan: AttentionPlan) -> Tensor:
        layer = cast(Any, self.layer)
        hidden = hidden + _attention(layer.self_attn, _normed(layer.input_layernorm, hidden), angles, attention_plan)
        inner = _normed(layer.post_attention_layernorm, hidden)
        mlp = layer.mlp
        gated = silu_gated(_projected(mlp.gate_proj, inner), _projected(mlp.up_proj, inner))
        return hidden + _projected(mlp.down_proj, gated)


def _attention(module: Any, x: Tensor, angles: tuple[Tensor, Tensor], attention_plan: AttentionPlan) -> Tensor:
    by_head = (len(x), -1, module.head_dim)
    q = _projected(module.q_proj, x).view(by_head)
    k = _projected(module.k_proj, x).view(by_head)
    v = _projected(module.v_proj, x).view(by_head)
    if hasattr(module, "q_norm"):
        q, k = _normed(module.q_norm, q), _normed(module.k_norm, k)
    attended = attend(rotated(q, *angles), rotated(k, *angles), v, module.scaling, attention_plan)
    return _projected(module.o_proj, attended.reshape(len(x), -1))


def _angles(rotary: nn.Module, hidden: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of each token's rotary angles, shape (n, 1, size), with the first half of the sines negated."""
    cosine, sine = rotary(hidden[None], depths[None])
    half = sine.shape[-1] // 2
    return cosine[0, :, None], torch.cat((-sine[0, :, :half], sine[0, :, half:]), -1)[:, None]


def _normed(module: Any, x: Tensor) -> Tensor:
    return rms_norm(x, module.weight, module.variance_epsilon)


def _projected(module: Any, x: Tensor) -> Tensor:
    """The output of a linear layer, with its adapter if it has one."""
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

"""Causal language models for the trainer: from a token tree to the loss of its answers.

`FusedModel` runs the layers of the Llama family (Llama, Mistral, Qwen 2 and 3) over a tree's tokens with the functions of
`kernels.py` and `attention.py`; `PlainModel` uses transformers' forward pass with a dense mask, for every other
architecture. Both share the modules of the model that they wrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from perpetune.errors import PerpetuneError
from perpetune.model.label_head import LabelHead
from perpetune.model.loss import chunked_cross_entropy, plain_cross_entropy
from perpetune.model.parts import blocks_of, decoder_of, logits_at
from perpetune.model.trees.attention_masks import SLIDING, sliding_window
from perpetune.model.trees.packing import FUSED, longest_in_tree
from perpetune.model.trees.token_tree import Tree, build_tree, model_inputs
from perpetune.training.batches import Encoded
from perpetune.training.decoder.attention import AttentionPlan, attend, plan
from perpetune.training.decoder.kernels import lora_linear, rms_norm, rotated, silu_gated
from perpetune.training.decoder.network import (
    Features,
    Network,
    TemperatureTargets,
    TokenTargets,
    label_targets,
    token_targets,
)


def training_network(
    model: nn.Module, compute: torch.dtype, *, checkpointing: bool = False, label_head: LabelHead | None = None
) -> FusedModel | PlainModel:
    """The fastest network to train `model`, which may be a PeftModel; activations have the dtype `compute`.

    Raises PerpetuneError as `longest_in_tree` does, and if the model cannot recompute activations for `checkpointing`.
    """
    causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if causal.config.model_type in FUSED and causal.config.hidden_act == "silu":
        return FusedModel(causal, compute, checkpointing, label_head)
    return PlainModel(causal, compute, checkpointing, label_head)


def summed_loss(model: Network, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """Cross-entropy summed over the answer tokens of the rows, or over their labels, in one packed forward pass."""
    tree = build_tree(row.inputs for row in rows)
    targets = label_targets(rows, tree, device) if model.label_head else token_targets(rows, tree, device)
    loss: Tensor = model(tree, targets, device)
    return loss


def losses_by_temperature(model: Network, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """Cross-entropy summed over the labels of the rows, at each of `TEMPERATURES`, shape (temperatures,)."""
    tree = build_tree(row.inputs for row in rows)
    targets = label_targets(rows, tree, device)
    losses: Tensor = model(tree, TemperatureTargets(targets.paths, targets.labels, targets.weights), device)
    return losses


def prompt_features(model: Network, rows: Sequence[Encoded], device: torch.device) -> Tensor:
    """The label head's features of the rows, (rows, 2 * size) in fp32."""
    tree = build_tree(row.inputs for row in rows)
    found: Tensor = model(tree, Features(tree.paths), device)
    return found


class PlainModel(Network):
    """Any causal language model of transformers over a token tree."""

    def __init__(
        self, causal: nn.Module, compute: torch.dtype, checkpointing: bool, label_head: LabelHead | None = None
    ) -> None:
        super().__init__()
        self.causal = causal
        self.compute = compute
        self.label_head = label_head
        self.longest_in_tree = longest_in_tree(cast(Any, causal))
        if checkpointing:
            _checkpoint_layers(causal)

    def blocks(self) -> list[nn.Module]:
        return blocks_of(self.causal)

    def hidden(self, tree: Tree, device: torch.device) -> Tensor:
        with self._precision(device):
            found: Tensor = decoder_of(self.causal)(**self._inputs(tree, device)).last_hidden_state[0]
        return found

    def token_loss(self, tree: Tree, targets: TokenTargets, device: torch.device) -> Tensor:
        with self._precision(device):
            logits = logits_at(self.causal, targets.positions, self._inputs(tree, device))[0]
        return plain_cross_entropy(logits, targets.tokens, targets.weights)

    def _inputs(self, tree: Tree, device: torch.device) -> dict[str, Any]:
        """A row by itself needs no mask, and an architecture without masks takes none."""
        if len(tree.paths) == 1:
            return {"input_ids": torch.from_numpy(tree.tokens).to(device)[None], "use_cache": False}
        return {**model_inputs(tree, cast(Any, self.causal).config, device, self.compute), "use_cache": False}

    def _precision(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32)


def _checkpoint_layers(causal: nn.Module) -> None:
    try:
        cast(Any, causal).gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as fault:
        raise PerpetuneError(
            str(fault), where="params.yaml: train.gradient_checkpointing", do="set it to false"
        ) from fault


class FusedModel(Network):
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
        self.longest_in_tree = longest_in_tree(cast(Any, causal))
        self.windows = _windows(cast(Any, causal).config, len(self.layers))

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def hidden(self, tree: Tree, device: torch.device) -> Tensor:
        return _normed(self.norm, self._unnormed(tree, device))

    def token_loss(self, tree: Tree, targets: TokenTargets, device: torch.device) -> Tensor:
        final = _normed(self.norm, self._unnormed(tree, device)[targets.positions])
        if _is_adapted(self.head):
            return plain_cross_entropy(_projected(self.head, final), targets.tokens, targets.weights)
        return chunked_cross_entropy(final, self.head.weight, targets.tokens, targets.weights)

    def _unnormed(self, tree: Tree, device: torch.device) -> Tensor:
        hidden = self.embedding(torch.from_numpy(tree.tokens).to(device)).to(self.compute)
        angles = _angles(self.angles, hidden, torch.from_numpy(tree.depths).to(device))
        plans = {window: plan(tree, device, self.compute, window) for window in set(self.windows)}
        for layer, window in zip(self.layers, self.windows, strict=True):
            if self.checkpointing and self.training:
                hidden = checkpoint(layer, hidden, angles, plans[window], use_reentrant=False)
            else:
                hidden = layer(hidden, angles, plans[window])
        return cast(Tensor, hidden)


def _windows(config: Any, layers: int) -> list[int | None]:
    """The sliding window of each layer; None for full attention."""
    window = sliding_window(config)
    kinds = getattr(config, "layer_types", None) or [SLIDING] * layers
    return [window if kind == SLIDING else None for kind in kinds]


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

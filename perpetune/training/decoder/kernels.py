"""The decoder's operations with explicit gradients, so that each takes a few kernel calls instead of dozens.

On narrow tasks a step has a few hundred tokens, and the overhead around the matrix products (casts, copies, a kernel for
each factor) costs more than the products. Every function is tested against the module that it replaces. (The same idea as
in Unsloth and the Liger Kernel, Hsu et al. 2024, arXiv:2410.10989.)

Elementwise operations are separate formulas, which a GPU runs compiled into one kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")


def lora_linear(x: Tensor, dropped: Tensor | None, layer: nn.Module, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """`layer(x) + scale * x @ down.T @ up.T` for a frozen linear layer, also a 4-bit one.

    x (n, inputs), down (rank, inputs), up (outputs, rank); `dropped` is x after dropout, for the adapter only.
    The adapter is multiplied in x's precision, as under autocast; its weights and gradients keep their precision.
    """
    result: Tensor = _LoraLinear.apply(x, dropped, layer, down, up, scale)  # type: ignore[no-untyped-call]
    return result


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square normalization over the last dimension, its statistics in fp32 (arXiv:1910.07467)."""
    result: Tensor = _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
    return result


def silu_gated(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up` (SwiGLU, arXiv:2002.05202); the activation is recomputed in the backward pass."""
    result: Tensor = _SiluGated.apply(gate, up)  # type: ignore[no-untyped-call]
    return result


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864) of x (n, heads, size) by angles (n, 1, size).

    The first half of `sine` is negated, so that swapping the halves rotates.
    """
    result: Tensor = _Rotated.apply(x, cosine, sine)  # type: ignore[no-untyped-call]
    return result


def dense_weight(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """A linear layer's weight (outputs, inputs), dequantized if it is stored in 4 bits."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, weight.quant_state)
    return weight.to(dtype)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, layer: nn.Module, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        low, high, bias = down.to(x.dtype), up.to(x.dtype), cast(Tensor | None, layer.bias)
        inputs = x if dropped is None else dropped
        y = linear(x, dense_weight(layer, x.dtype), None if bias is None else bias.to(x.dtype))
        inner = linear(inputs, low)
        ctx.save_for_backward(inputs, low, high, inner)
        ctx.layer, ctx.scale, ctx.dtype = layer, scale, down.dtype
        return y.addmm_(inner, high.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, Tensor, Tensor, None]:
        inputs, low, high, inner = ctx.saved_tensors
        d_inner = (dy @ high).mul_(ctx.scale)
        d_up = (dy.t() @ inner).to(ctx.dtype).mul_(ctx.scale)
        d_down = (d_inner.t() @ inputs).to(ctx.dtype)
        dx = dy @ dense_weight(ctx.layer, dy.dtype) if ctx.needs_input_grad[0] else None
        d_dropped = None
        if ctx.needs_input_grad[1]:
            d_dropped = d_inner @ low
        elif dx is not None:
            dx.addmm_(d_inner, low)
        return dx, d_dropped, None, d_down, d_up, None


def _run(formula: Callable[Inputs, Output], *inputs: Inputs.args, **named: Inputs.kwargs) -> Output:
    """Run a formula, compiled into one kernel on a GPU."""
    on_gpu = isinstance(inputs[0], Tensor) and inputs[0].is_cuda
    return (_compiled(formula) if on_gpu else formula)(*inputs, **named)


@cache
def _compiled(formula: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    return torch.compile(formula)  # late, because importing the compiler takes seconds


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        normal, inverse = _run(_normalized, x, weight, epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return normal

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        dx = _run(_normalized_back, dy, x, weight, inverse)
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (dy * (x * inverse)).flatten(0, -2).sum(0).to(weight.dtype)
        return dx, d_weight, None


def _normalized(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return (x * inverse).to(x.dtype) * weight.to(x.dtype), inverse


def _normalized_back(dy: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    scaled = dy * weight.to(dy.dtype)
    along = (scaled * x).sum(-1, keepdim=True, dtype=torch.float32)
    along.mul_(inverse.pow(3)).div_(-x.shape[-1])
    return (scaled * inverse).add_(x * along).to(x.dtype)


class _SiluGated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _run(_gated, gate, up)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        return _run(_gated_back, dy, *ctx.saved_tensors)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate).mul_(up)


def _gated_back(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.silu_backward(dy * up, gate), silu(gate).mul_(dy)


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _run(_rotate, x, cosine, sine)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _run(_rotate, dy, cosine, -sine), None, None


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, -1), sine)

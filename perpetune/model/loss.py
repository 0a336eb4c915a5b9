"""Cross-entropy without materialising all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

# Rows of logits in memory at once: 256 x 50,000 tokens are 51 MB in fp32.
LOGIT_ROWS = 256


def plain_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the cross-entropy of targets (n,), with weights (n,) and logits (n, vocabulary)."""
    return cross_entropy(logits.float(), targets, reduction="none").mul(weights).sum()


def chunked_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """`plain_cross_entropy(hidden @ head.T, ...)` for hidden (n, size) and head (vocabulary, size).

    Logits and their gradients are computed for `LOGIT_ROWS` rows at a time, so memory grows with n * size, not with
    n * vocabulary. (As Wijmans et al. 2024, Cut Your Losses, arXiv:2411.09009, without its kernel.)
    """
    result: Tensor = _Chunked.apply(hidden, head, targets, weights, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return result


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, needs_grad: bool) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if needs_grad and ctx.needs_input_grad[0] else None
        d_head = torch.zeros_like(head, dtype=torch.float32) if needs_grad and ctx.needs_input_grad[1] else None
        matrix = head.to(hidden.dtype)
        for first in range(0, len(hidden), LOGIT_ROWS):
            rows = slice(first, first + LOGIT_ROWS)
            logits = (hidden[rows] @ matrix.t()).float()
            wanted = logits.gather(1, targets[rows, None])[:, 0]
            normalizers = logits.logsumexp(-1)
            total += ((normalizers - wanted) * weights[rows]).sum()
            if d_hidden is None and d_head is None:
                continue
            d_logits = logits.sub_(normalizers[:, None]).exp_()
            d_logits.scatter_add_(1, targets[rows, None], torch.full_like(wanted, -1.0)[:, None])
            d_logits = d_logits.mul_(weights[rows, None]).to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[rows] = d_logits @ matrix
            if d_head is not None:
                d_head += (d_logits.t() @ hidden[rows]).float()
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_dtype = head.dtype
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        d_hidden, d_head = ctx.saved_tensors
        return (
            None if d_hidden is None else d_hidden.mul_(d_total),
            None if d_head is None else d_head.mul_(d_total).to(ctx.head_dtype),
            None,
            None,
            None,
        )

"""Every formula compiles into one graph for any number of tokens, and equals its module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from perpetune.training.decoder.kernels import _gated, _gated_back, _normalized, _normalized_back, _rotate

N = "tokens"
FORMULAS: dict[Callable[..., Any], list[tuple[str | int, ...]]] = {
    _normalized_back: [(N, 32), (N, 32), (32,), (N, 1)],
    _gated: [(N, 64), (N, 64)],
    _gated_back: [(N, 64), (N, 64), (N, 64)],
    _rotate: [(N, 4, 16), (N, 1, 16), (N, 1, 16)],
}


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
def test_compiled_formulas_compute_the_same(formula: Callable[..., Any]) -> None:
    compiled = torch.compile(formula, backend="aot_eager", fullgraph=True)
    for tokens in (5, 9, 130):
        inputs = [
            torch.randn([tokens if isinstance(size, str) else size for size in shape]) for shape in FORMULAS[formula]
        ]
        torch.testing.assert_close(compiled(*inputs), formula(*inputs))


def test_the_compiled_norm_computes_the_same() -> None:
    compiled = torch.compile(_normalized, backend="aot_eager", fullgraph=True)
    for tokens in (5, 9, 130):
        x, weight = torch.randn(tokens, 32), torch.randn(32)
        torch.testing.assert_close(compiled(x, weight, 1e-5), _normalized(x, weight, 1e-5))

"""Attention as a GPU computes it equals attention by blocks, as a CPU does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention
from torch.nn.attention.flex_attention import create_mask

from perpetune.model.trees.token_tree import Tree, build_tree, is_visible
from perpetune.training.decoder.attention import AttentionPlan, _flex_mask, attend, plan

CPU = torch.device("cpu")


def tree(shared: int, own: int) -> Tree:
    """Six rows with a common prefix, two of them with a longer one."""
    torch.manual_seed(own)
    prefix = list(range(shared))
    rows = [[*prefix, *torch.randint(0, 50, (own,)).tolist()] for _ in range(5)]
    return build_tree([*rows, [*rows[0][:-1], 99]])


WINDOWS = pytest.mark.parametrize("window", [None, 1, 7, 50, 1000])


@WINDOWS
@pytest.mark.parametrize(("shared", "own"), [(100, 40), (10, 3), (0, 64)])
def test_the_gpu_mask_equals_the_visibility(shared: int, own: int, window: int | None) -> None:
    token_tree = tree(shared, own)
    positions = np.arange(len(token_tree))
    mask_mod = _flex_mask(token_tree, CPU, window).mask_mod
    mask = create_mask(mask_mod, None, None, len(token_tree), len(token_tree), device="cpu")
    assert mask[0, 0].tolist() == is_visible(token_tree, positions, positions, window).tolist()


def test_a_window_counts_the_tokens_of_a_row() -> None:
    token_tree = build_tree([(1, 2, 3, 4), (1, 2, 5, 6)])  # 1 2 3 4 5 6: the parent of 5 is 2
    visible = is_visible(token_tree, np.arange(6), np.arange(6), 2).tolist()
    assert [[key for key, seen in enumerate(row) if seen] for row in visible] == [
        [0],
        [0, 1],
        [1, 2],
        [2, 3],
        [1, 4],
        [4, 5],
    ]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@WINDOWS
@pytest.mark.parametrize(("shared", "own", "size"), [(100, 40, 16), (10, 3, 8), (0, 64, 24)])
def test_both_ways_of_attending_agree(
    shared: int, own: int, size: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Torch refuses gradients on a CPU since its compiled kernel has none there; its formula, run eagerly, has.
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    token_tree = tree(shared, own)
    q, k, v, d_out = (torch.randn(len(token_tree), heads, size) for heads in (8, 2, 2, 8))

    def learned(who_sees: AttentionPlan) -> list[Tensor]:
        one, two, three = inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attend(one, two, three, 0.25, who_sees)
        return [out, *torch.autograd.grad(out, inputs, d_out)]

    by_blocks = learned(plan(token_tree, CPU, torch.float32, window))
    with torch.compiler.set_stance("force_eager"):
        by_flex = learned(AttentionPlan((), _flex_mask(token_tree, CPU, window)))
    for mine, other in zip(by_blocks, by_flex, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)

"""Token trees: several sequences packed into one, with common prefixes computed once.

Examples of a narrow task have a common prefix (the instruction), and so have the labels of a classification after the same
input. In a tree (trie) of tokens each common prefix is one path: a token attends to itself and its ancestors, its position
is its depth, and the logits at a token predict its children. So losses and gradients equal those of the unpacked
computation. (Tree attention is known from speculative decoding: Miao et al., SpecInfer, 2023, arXiv:2305.09781.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedConfig

from perpetune.model.trees.attention_masks import attention_masks


@dataclass(frozen=True)
class Tree:
    """A tree of n tokens in preorder.

    `tokens`, `depths` and `ends` have shape (n,); `ends` is the position after a token's subtree. `paths[k]` are the
    positions of the tokens of sequence k.
    """

    tokens: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    paths: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.tokens)


def build_tree(sequences: Iterable[Sequence[int]]) -> Tree:
    """Build a tree of token sequences, with shared common prefixes."""
    rows = [tuple(sequence) for sequence in sequences]
    tokens: list[int] = []
    depths: list[int] = []
    paths: list[tuple[int, ...]] = [()] * len(rows)
    before: tuple[int, ...] = ()
    path: tuple[int, ...] = ()
    for index in sorted(range(len(rows)), key=rows.__getitem__):  # sorted order gives preorder
        row = rows[index]
        shared = _shared(before, row)
        path = (*path[:shared], *range(len(tokens), len(tokens) + len(row) - shared))
        tokens += row[shared:]
        depths += range(shared, len(row))
        before = row
        paths[index] = path
    return Tree(np.array(tokens), np.array(depths), _ends(depths), tuple(paths))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common prefix."""
    differ = (position for position, (mine, yours) in enumerate(zip(one, other, strict=False)) if mine != yours)
    return next(differ, min(len(one), len(other)))


def _ends(depths: Sequence[int]) -> npt.NDArray[np.int64]:
    """The position after each token's subtree: the next one whose depth is not larger."""
    ends = np.full(len(depths), len(depths))
    unfinished: list[int] = []
    for position, depth in enumerate(depths):
        while unfinished and depths[unfinished[-1]] >= depth:
            ends[unfinished.pop()] = position
        unfinished.append(position)
    return ends


def parents(tree: Tree) -> list[int]:
    """The position of each token's parent, -1 for a root."""
    newest = {-1: -1}
    found: list[int] = []
    for position, depth in enumerate(tree.depths.tolist()):
        found.append(newest[depth - 1])
        newest[depth] = position
    return found


def is_visible(
    tree: Tree, queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], window: int | None = None
) -> npt.NDArray[np.bool_]:
    """A mask (queries, keys): whether the key's token is the query's token or an ancestor of it.

    With a `window`, an ancestor must be less than so many tokens before.
    """
    visible: npt.NDArray[np.bool_] = (keys <= queries[:, None]) & (queries[:, None] < tree.ends[keys])
    if window is not None:
        visible &= tree.depths[queries][:, None] - tree.depths[keys] < window
    return visible


def model_inputs(
    tree: Tree, config: PreTrainedConfig, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
    """Inputs of a transformers decoder: ids and positions (1, n), additive attention masks (1, 1, n, n)."""
    positions = np.arange(len(tree))
    visible = torch.from_numpy(is_visible(tree, positions, positions)).to(device)
    depths = torch.from_numpy(tree.depths).to(device)
    return {
        "input_ids": torch.from_numpy(tree.tokens).to(device)[None],
        "position_ids": depths[None],
        "attention_mask": attention_masks(config, visible, depths, depths, dtype),
    }


def groups_within(sequences: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
    """Group consecutive sequences so that the tree of each group has at most `limit` tokens; returns their indices.

    A sequence longer than the limit is a group by itself.
    """
    groups: list[list[int]] = []
    known: set[tuple[int, int]] = set()
    ids: dict[tuple[int, int], int] = {}
    size = 0
    for index, sequence in enumerate(sequences):
        nodes = _nodes(sequence, ids)
        new = [node for node in nodes if node not in known]
        if groups and size + len(new) <= limit:
            groups[-1].append(index)
        else:
            groups.append([index])
            known, new, size = set(), nodes, 0
        known.update(new)
        size += len(new)
    return groups


def _nodes(sequence: Sequence[int], ids: dict[tuple[int, int], int]) -> list[tuple[int, int]]:
    """The sequence as tree nodes (parent, token); equal prefixes have equal parent numbers."""
    nodes: list[tuple[int, int]] = []
    parent = -1
    for token in sequence:
        node = (parent, token)
        parent = ids.setdefault(node, len(ids))
        nodes.append(node)
    return nodes

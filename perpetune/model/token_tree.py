"""Token trees: several sequences in one, with what they share computed once.

Examples of a narrow task begin with the same tokens (the instruction), and the labels of a
classification begin alike behind the same input. Laid out as a tree in which every token knows its
parent, the shared beginnings are one path: a token attends to itself and its ancestors, its position
is its depth, and the logits at a token predict its children. Each sequence sees exactly what it would
see alone, so losses and gradients are those of the unpacked computation. (Tree attention is known from
speculative decoding: Miao et al., SpecInfer, 2023, arXiv:2305.09781.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Tree:
    """n tokens in preorder: each parent before its children, each subtree in one piece.

    `tokens`, `depths` and `ends` are arrays of shape (n,); `ends` holds the place after a token's subtree.
    `paths[k]` holds the places of the tokens of sequence k.
    """

    tokens: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    paths: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.tokens)


def build_tree(sequences: Iterable[Sequence[int]]) -> Tree:
    """Lay token sequences into one tree, equal beginnings shared."""
    rows = [tuple(sequence) for sequence in sequences]
    tokens: list[int] = []
    depths: list[int] = []
    paths: list[tuple[int, ...]] = [()] * len(rows)
    before: tuple[int, ...] = ()
    path: tuple[int, ...] = ()
    for index in sorted(range(len(rows)), key=rows.__getitem__):  # neighbours share most: that gives preorder
        row = rows[index]
        shared = _shared(before, row)
        path = (*path[:shared], *range(len(tokens), len(tokens) + len(row) - shared))
        tokens += row[shared:]
        depths += range(shared, len(row))
        before = row
        paths[index] = path
    return Tree(np.array(tokens), np.array(depths), _ends(depths), tuple(paths))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    differ = (position for position, (mine, yours) in enumerate(zip(one, other, strict=False)) if mine != yours)
    return next(differ, min(len(one), len(other)))


def _ends(depths: Sequence[int]) -> npt.NDArray[np.int64]:
    """In preorder a subtree ends where the depth comes back to that of its root."""
    ends = np.full(len(depths), len(depths))
    unfinished: list[int] = []
    for position, depth in enumerate(depths):
        while unfinished and depths[unfinished[-1]] >= depth:
            ends[unfinished.pop()] = position
        unfinished.append(position)
    return ends


def parents(tree: Tree) -> list[int]:
    """The place of each token's parent, -1 for a root: in preorder, the last token that is one less deep."""
    newest = {-1: -1}
    found: list[int] = []
    for position, depth in enumerate(tree.depths.tolist()):
        found.append(newest[depth - 1])
        newest[depth] = position
    return found


def is_visible(tree: Tree, queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Shape (queries, keys): whether the key's token is the query's own or an ancestor of it."""
    visible: npt.NDArray[np.bool_] = (keys <= queries[:, None]) & (queries[:, None] < tree.ends[keys])
    return visible


def model_inputs(tree: Tree, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What a transformers decoder reads: ids and positions (1, n), an additive mask (1, 1, n, n)."""
    positions = np.arange(len(tree))
    visible = torch.from_numpy(is_visible(tree, positions, positions)).to(device)
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
    return {
        "input_ids": torch.from_numpy(tree.tokens).to(device)[None],
        "position_ids": torch.from_numpy(tree.depths).to(device)[None],
        "attention_mask": mask[None, None],
    }


def groups_within(sequences: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
    """Cut a list of sequences, in its order, into runs whose trees hold at most `limit` tokens.

    A sequence longer than the limit gets a run of its own. Returns the indices of each run.
    """
    runs: list[list[int]] = []
    seen: set[tuple[int, int]] = set()
    ids: dict[tuple[int, int], int] = {}
    size = 0
    for index, sequence in enumerate(sequences):
        nodes = _nodes(sequence, ids)
        new = [node for node in nodes if node not in seen]
        if runs and size + len(new) <= limit:
            runs[-1].append(index)
        else:
            runs.append([index])
            seen, new, size = set(), nodes, 0
        seen.update(new)
        size += len(new)
    return runs


def _nodes(sequence: Sequence[int], ids: dict[tuple[int, int], int]) -> list[tuple[int, int]]:
    """The sequence as tree nodes (parent, token), parents numbered alike for equal beginnings."""
    nodes: list[tuple[int, int]] = []
    parent = -1
    for token in sequence:
        node = (parent, token)
        parent = ids.setdefault(node, len(ids))
        nodes.append(node)
    return nodes

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
    """n tokens, parents before children.

    `tokens`, `parents` (-1 for a root) and `depths` are arrays of shape (n,). `paths[k]` holds the
    places of the tokens of sequence k.
    """

    tokens: npt.NDArray[np.int64]
    parents: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int64]
    paths: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.tokens)


def plant(sequences: Iterable[Sequence[int]]) -> Tree:
    """Lay token sequences into one tree, equal beginnings shared."""
    places: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    paths: list[tuple[int, ...]] = []
    for sequence in sequences:
        path: list[int] = []
        parent = -1
        for depth, token in enumerate(sequence):
            place = places.setdefault((parent, token), len(tokens))
            if place == len(tokens):
                tokens.append(token)
                parents.append(parent)
                depths.append(depth)
            path.append(place)
            parent = place
        paths.append(tuple(path))
    return Tree(np.array(tokens), np.array(parents), np.array(depths), tuple(paths))


def ancestors(tree: Tree) -> npt.NDArray[np.bool_]:
    """Shape (n, n): whether the token of the row may attend to the token of the column."""
    sees = np.zeros((len(tree), len(tree)), dtype=np.bool_)
    for place, parent in enumerate(tree.parents):
        if parent >= 0:
            sees[place] = sees[parent]
        sees[place, place] = True
    return sees


def model_inputs(tree: Tree, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What a transformers decoder reads: ids and positions (1, n), an additive mask (1, 1, n, n)."""
    sees = torch.from_numpy(ancestors(tree)).to(device)
    mask = torch.zeros(sees.shape, dtype=dtype, device=device).masked_fill_(~sees, torch.finfo(dtype).min)
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

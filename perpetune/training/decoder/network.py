"""What the networks of the trainer have in common: from the hidden states of a token tree to a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perpetune.model.label_head import LabelHead, features
from perpetune.model.trees.token_tree import Tree, build_tree
from perpetune.training.batches import Encoded, pack_rows, tree_size
from perpetune.training.distributed import SINGLE_PROCESS, World, local_rows, padded_passes


@dataclass(frozen=True)
class TokenTargets:
    """The next tokens (m,) at `positions` (m,) of a tree, with weights (m,); `counts` are those of each row."""

    positions: Tensor
    tokens: Tensor
    weights: Tensor
    counts: tuple[int, ...]


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


class Network(nn.Module):
    """A causal language model over token trees. Rows longer than `longest_in_tree` are read one by one."""

    label_head: LabelHead | None
    longest_in_tree: float

    def micro_batches(self, rows: Sequence[Encoded], limit: int, world: World = SINGLE_PROCESS) -> list[list[Encoded]]:
        """This process's micro-batches of at most `limit` tokens, as many as every other process has."""
        several = world.size > 1  # whose layers are gathered together, so all must compute as many forward passes
        packed = pack_rows(local_rows(rows, world), limit, self.longest_in_tree, one_by_one=several)
        return padded_passes(packed, world)

    def size(self, rows: Sequence[Encoded]) -> int:
        """The tokens that are computed for a micro-batch."""
        return tree_size(rows, self.longest_in_tree)

    def hidden(self, tree: Tree, device: torch.device) -> Tensor:
        """The last hidden states (n, size) of a tree of n tokens."""
        raise NotImplementedError

    def token_loss(self, tree: Tree, targets: TokenTargets, device: torch.device) -> Tensor:
        """Weighted sum of the cross-entropy of the next tokens."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The layers, one after the other."""
        raise NotImplementedError

    def forward(self, tree: Tree, targets: Targets, device: torch.device) -> Tensor:
        trees = _readable(tree, self.longest_in_tree)
        if isinstance(targets, TokenTargets):
            parts = [targets] if len(trees) == 1 else _of_rows(targets, tree)
            losses = [self.token_loss(part, wanted, device) for part, wanted in zip(trees, parts, strict=True)]
            return torch.stack(losses).sum()
        return self._label_loss(trees, targets, device)

    def _label_loss(self, trees: Sequence[Tree], targets: LabelTargets | Features, device: torch.device) -> Tensor:
        """The loss of the labels, or the head's features."""
        head = self.label_head
        assert head is not None, "label targets need a label head"
        input_from = head.shape.input_from
        found = torch.cat([features(self.hidden(part, device), part.paths, input_from) for part in trees])
        if isinstance(targets, Features):
            return found
        if isinstance(targets, TemperatureTargets):
            return head.losses_by_temperature(found, targets.labels, targets.weights)
        return head.summed_loss(found, targets.labels, targets.weights)


def _readable(tree: Tree, longest: float) -> list[Tree]:
    """The tree, or a tree of each row if one is too long for sharing."""
    if len(tree.paths) == 1 or max(map(len, tree.paths)) <= longest:
        return [tree]
    return [build_tree([tree.tokens[list(path)].tolist()]) for path in tree.paths]


def _of_rows(targets: TokenTargets, tree: Tree) -> list[TokenTargets]:
    """The targets of each row, in a tree of its own; they are at the end of the row."""
    counts = list(targets.counts)
    return [
        TokenTargets(torch.arange(len(path) - count, len(path), device=tokens.device), tokens, weights, (count,))
        for path, count, tokens, weights in zip(
            tree.paths, counts, targets.tokens.split(counts), targets.weights.split(counts), strict=True
        )
    ]


def token_targets(rows: Sequence[Encoded], tree: Tree, device: torch.device) -> TokenTargets:
    """The answers of the rows, whose inputs are the tree's paths."""
    positions = [
        position for row, path in zip(rows, tree.paths, strict=True) for position in path[row.answer_from - 1 :]
    ]
    tokens = [token for row in rows for token in row.tokens[row.answer_from :]]
    weights = [row.weight for row in rows for _ in row.tokens[row.answer_from :]]
    return TokenTargets(
        torch.tensor(positions, device=device),
        torch.tensor(tokens, device=device),
        torch.tensor(weights, device=device, dtype=torch.float32),
        tuple(len(row.tokens) - row.answer_from for row in rows),
    )


def label_targets(rows: Sequence[Encoded], tree: Tree, device: torch.device) -> LabelTargets:
    """The labels of the rows, whose prompts are the tree's paths."""
    return LabelTargets(
        tree.paths,
        torch.tensor([row.label for row in rows], device=device),
        torch.tensor([row.weight for row in rows], device=device, dtype=torch.float32),
    )

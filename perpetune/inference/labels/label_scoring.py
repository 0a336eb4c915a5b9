"""Label probabilities from token probabilities, by branch and bound over a tree of the labels' tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from perpetune.inference.caches.prefix_cache import EMPTY_PREFIX, CachedPrefix, parents_after, tree_logits
from perpetune.model.trees.token_tree import build_tree

# The largest error of a label's probability. In fp32 the order of additions already moves it by 1e-6.
TOLERANCE = 1e-6
# The same for many labels, whose trees have more than MANY_TOKENS tokens: an untuned model hardly separates them by
# their first tokens.
TOLERANCE_OF_MANY = 1e-2
MANY_TOKENS = 48
# With many labels, this number of a row's most likely branches is read in the first pass, twice as many in each next.
FIRST_BEAM = 8

# Rows of logits in memory: 256 x a vocabulary of 50,000 are 51 MB in fp32.
LOGITS_ROWS = 256
# Logits of a forward pass in the model's precision: 512 MB in bf16. With a vocabulary of 50,000 these are 5,000 rows.
PASS_LOGITS = 1 << 28

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Branch:
    """Labels (indices) with a common prefix, as a node of the label tree.

    `tokens` follow the tokens of the parent branch. After them a label in `ends` is completed by its last token, which
    needs no forward pass, and the others continue in `branches`, which differ in their first token.
    """

    labels: tuple[int, ...]
    tokens: tuple[int, ...]
    ends: Mapping[int, int]
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class _OpenBranch:
    """An unread branch after a row's token at `position`, with the log-probability up to its first token."""

    row: int
    branch: Branch
    position: int
    bound: float


@torch.inference_mode()
def label_log_probabilities(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    prefix: CachedPrefix = EMPTY_PREFIX,
    forward_tokens: int = 2048,
) -> torch.Tensor:
    """log p(label | prompt), shape (prompts, labels); labels are tokens with their end-of-turn token.

    `prompts` are the tokens after `prefix`, at least one each. Shared tokens of prompts and of labels are computed
    once, label tokens in forward passes of about `forward_tokens`.

    A label is at most as likely as its first tokens. If the unread labels of a row together have less probability
    than the tolerance, they are not read further and keep this bound (branch and bound: Land and Doig, 1960). The most
    likely label is always exact, and softmax over the labels is within the tolerance of the exact probabilities. The
    tolerance is TOLERANCE, or TOLERANCE_OF_MANY for many labels; it depends only on the labels.
    """
    rows = list(dict.fromkeys(map(tuple, prompts)))
    root = branch_of(dict(enumerate(labels)))
    # The overhead of a pass equals about a quarter of its capacity: few label tokens are read with the prompts.
    forward_tokens = min(forward_tokens, logit_rows(model))
    together = len(rows) * tokens_of(root) <= forward_tokens // 4
    if together:
        scores = _exhaustive(model, rows, labels, prefix)
    else:
        scores = _branch_and_bound(model, rows, root, prefix, forward_tokens)
    positions = {row: position for position, row in enumerate(rows)}
    return torch.from_numpy(scores[[positions[tuple(prompt)] for prompt in prompts]])


def are_many(labels: Sequence[Sequence[int]]) -> bool:
    """Whether TOLERANCE_OF_MANY holds for these labels."""
    return tokens_of(branch_of(dict(enumerate(labels)))) > MANY_TOKENS


def _exhaustive(
    model: torch.nn.Module, rows: Sequence[tuple[int, ...]], labels: Sequence[Sequence[int]], prefix: CachedPrefix
) -> Scores:
    tree = build_tree((*row, *label[:-1]) for row in rows for label in labels)
    starts = [len(row) - 1 for row in rows for _ in labels]
    wanted = [*labels] * len(rows)
    asked = [
        list(zip(path[start:], label, strict=True))
        for path, start, label in zip(tree.paths, starts, wanted, strict=True)
    ]
    steps = [step for of_label in asked for step in of_label]
    _, found = _read(model, prefix, tree.tokens.tolist(), parents_after(prefix, tree), steps)
    each = iter(found)
    return np.array([sum(next(each) for _ in of_label) for of_label in asked]).reshape(len(rows), len(labels))


def _branch_and_bound(
    model: torch.nn.Module,
    rows: Sequence[tuple[int, ...]],
    root: Branch,
    prefix: CachedPrefix,
    forward_tokens: int,
) -> Scores:
    tree = build_tree(rows)
    scores = np.full((len(rows), len(root.labels)), -np.inf)
    ends = [path[-1] for path in tree.paths]
    read = [_OpenBranch(row, root, len(prefix) + end, 0.0) for row, end in enumerate(ends)]
    asked = _asked(read, ends)
    cached, found = _read(model, prefix, tree.tokens.tolist(), parents_after(prefix, tree), asked)
    many = tokens_of(root) > MANY_TOKENS
    opened = _expand(found, ends, read, len(prefix), scores)
    for group in _groups(opened, forward_tokens, FIRST_BEAM if many else None):
        _search(model, cached, group, scores, many)
    return scores


def tokens_of(branch: Branch) -> int:
    """The number of tokens to compute: all but the last of each label, shared ones once."""
    return len(branch.tokens) + sum(map(tokens_of, branch.branches))


def branch_of(labels: Mapping[int, Sequence[int]], tokens: tuple[int, ...] = ()) -> Branch:
    """The label tree after `tokens`, from label index to remaining tokens; a common prefix is one branch."""
    ends = {label: rest[0] for label, rest in labels.items() if len(rest) == 1}
    following: dict[int, dict[int, Sequence[int]]] = {}
    for label, rest in labels.items():
        if len(rest) > 1:
            following.setdefault(rest[0], {})[label] = rest[1:]
    if tokens and not ends and len(following) == 1:
        [(token, rests)] = following.items()
        return branch_of(rests, (*tokens, token))
    branches = tuple(branch_of(rests, (token,)) for token, rests in following.items())
    return Branch(tuple(labels), tokens, ends, branches)


def _groups(opened: Sequence[_OpenBranch], limit: int, at_once: int | None) -> Iterator[list[_OpenBranch]]:
    """Group the branches by whole rows, so that a group's first pass is about the limit."""
    group: list[_OpenBranch] = []
    size = 0
    for _, of_row in groupby(opened, key=lambda one: one.row):
        if size >= limit:
            yield group
            group, size = [], 0
        branches = list(of_row)
        group += branches
        size += sum(len(one.branch.tokens) for one in branches[:at_once])
    if group:
        yield group


def _search(
    model: torch.nn.Module, cached: CachedPrefix, opened: Sequence[_OpenBranch], scores: Scores, many: bool
) -> None:
    """Expand branches until the unread ones are below the tolerance.

    `scores` are upper bounds, exact if no branch is open.
    """
    waiting = list(opened)
    tolerance, at_once = (TOLERANCE_OF_MANY, FIRST_BEAM) if many else (TOLERANCE, len(opened))
    while True:
        of_rows = groupby(sorted(waiting, key=lambda one: one.row), key=lambda one: one.row)
        worth = {row: _worth_reading(list(ones), scores[row], tolerance) for row, ones in of_rows}
        chosen = [one for ones in worth.values() for one in ones[:at_once]]
        if not chosen:
            return
        at_once *= 2
        taken = set(map(id, chosen))
        waiting = [one for one in waiting if id(one) not in taken]
        for part in _within(chosen, logit_rows(model)):
            offset = len(cached)
            ends: list[int] = (np.cumsum([len(one.branch.tokens) for one in part]) - 1).tolist()
            cached, found = _read_branches(model, cached, part, _asked(part, ends))
            waiting += _expand(found, ends, part, offset, scores)


def _worth_reading(waiting: Sequence[_OpenBranch], scores: Scores, tolerance: float) -> list[_OpenBranch]:
    """A row's branches, most likely first, without those whose total probability is below the tolerance.

    The branch of the row's best score is always included, because that score is only a bound.
    """
    weights = np.exp(scores - scores.max())
    of_branches = [weights[list(one.branch.labels)] for one in waiting]
    held = np.array([of_labels.sum() for of_labels in of_branches])
    order = np.argsort(held, kind="stable")
    is_left = np.cumsum(held[order]) <= tolerance * weights.sum()
    return [
        waiting[position]
        for position, left in zip(order[::-1].tolist(), is_left[::-1].tolist(), strict=True)
        if not left or of_branches[position].max() == weights.max()
    ]


def _within(chosen: Sequence[_OpenBranch], limit: int) -> Iterator[list[_OpenBranch]]:
    """The branches in parts of at most `limit` tokens, or of one branch."""
    part: list[_OpenBranch] = []
    size = 0
    for one in chosen:
        if part and size + len(one.branch.tokens) > limit:
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one.branch.tokens)
    yield part


def _read_branches(
    model: torch.nn.Module, cached: CachedPrefix, chosen: Sequence[_OpenBranch], asked: Sequence[tuple[int, int]]
) -> tuple[CachedPrefix, list[float]]:
    tokens: list[int] = []
    parents: list[int] = []
    for one in chosen:
        first = len(cached) + len(tokens)
        tokens += one.branch.tokens
        parents += [one.position, *range(first, first + len(one.branch.tokens) - 1)]
    return _read(model, cached, tokens, parents, asked)


def _read(
    model: torch.nn.Module,
    before: CachedPrefix,
    tokens: Sequence[int],
    parents: Sequence[int],
    asked: Sequence[tuple[int, int]],
) -> tuple[CachedPrefix, list[float]]:
    """Read new tokens of a tree; log p(next token) for each step (new token, next token)."""
    wanted, rows = np.unique([node for node, _ in asked], return_inverse=True)
    cached, logits = tree_logits(model, before, tokens, parents, wanted.tolist())
    return cached, log_probabilities(logits, list(zip(rows.tolist(), (token for _, token in asked), strict=True)))


def _asked(read: Sequence[_OpenBranch], ends: Sequence[int]) -> list[tuple[int, int]]:
    """The steps of branches that end at `ends`."""
    return [step for end, one in zip(ends, read, strict=True) for step in _steps(one.branch, end)]


def _expand(
    found: Sequence[float], ends: Sequence[int], read: Sequence[_OpenBranch], offset: int, scores: Scores
) -> list[_OpenBranch]:
    """Score the branches, which end at `ends` of the newest tokens, and return the branches that follow.

    `found` are the log-probabilities of their steps, `offset` the index of the first of the newest tokens in its tree.
    """
    each = iter(found)
    opened: list[_OpenBranch] = []
    for end, one in zip(ends, read, strict=True):
        here = one.bound + sum(next(each) for _ in one.branch.tokens[1:])
        for label in one.branch.ends:
            scores[one.row, label] = here + next(each)
        for branch in one.branch.branches:
            bound = here + next(each)
            scores[one.row, list(branch.labels)] = bound
            opened.append(_OpenBranch(one.row, branch, offset + end, bound))
    return opened


def _steps(branch: Branch, end: int) -> list[tuple[int, int]]:
    """(new token, next token): along the branch from its second token, then all that may follow."""
    along = zip(range(end - len(branch.tokens) + 1, end), branch.tokens[1:], strict=True)
    after = [*branch.ends.values(), *(following.tokens[0] for following in branch.branches)]
    return [*along, *((end, token) for token in after)]


def logit_rows(model: torch.nn.Module) -> int:
    """The rows of logits of a forward pass that are within PASS_LOGITS, at least LOGITS_ROWS."""
    words = int(cast(Any, model).config.get_text_config().vocab_size)
    return max(LOGITS_ROWS, PASS_LOGITS // words)


def log_probabilities(logits: torch.Tensor, asked: Sequence[tuple[int, int]]) -> list[float]:
    """log p(token | row of the logits) for each (row, token), without all logits in fp32 in memory."""
    rows, tokens = np.array(asked).T
    found = np.empty(len(asked))
    for first in range(0, len(logits), LOGITS_ROWS):
        part = logits[first : first + LOGITS_ROWS].float()
        here = (rows >= first) & (rows < first + LOGITS_ROWS)
        row = torch.from_numpy(rows[here] - first).to(logits.device)
        token = torch.from_numpy(tokens[here]).to(logits.device)
        found[here] = (part[row, token] - part.logsumexp(-1)[row]).cpu().numpy()
    return [float(value) for value in found]

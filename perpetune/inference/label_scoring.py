"""How likely is each label? All labels of many inputs, and only as far as their probabilities can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch

from perpetune.inference.prefix_cache import EMPTY_PREFIX, CachedPrefix, forward_tree, parents_after
from perpetune.model.token_tree import build_tree

# No probability of a label among the labels is off by more. In fp32 the order of additions alone moves them by 1e-6.
TOLERANCE = 1e-6
# The same if there are many labels, of which an untuned model tells few apart by their first tokens: more than
# MANY_TOKENS to read behind each input.
TOLERANCE_OF_MANY = 1e-2
MANY_TOKENS = 48
# Of many labels a row reads its likeliest branches first: so many in the first pass, twice as many in each that follows.
FIRST_BEAM = 8

# Rows of logits held at once: 256 x 50,000 words are 51 MB in fp32.
LOGITS_ROWS = 256

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Branch:
    """Labels (their indices) that begin alike, up to where they part.

    `tokens` are read one after the other behind the branch before. There a label of `ends` is completed by its
    last token, which need not be read itself, and others go on along `branches`, each with another token.
    """

    labels: tuple[int, ...]
    tokens: tuple[int, ...]
    ends: Mapping[int, int]
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class _OpenBranch:
    """A branch behind a row's token at `position`, not read yet, and the log-probability up to its first token."""

    row: int
    branch: Branch
    position: int
    bound: float


@torch.inference_mode()
def label_log_probabilities(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    beginning: CachedPrefix = EMPTY_PREFIX,
    pass_tokens: int = 2048,
) -> torch.Tensor:
    """log p(label | prompt), shape (prompts, labels), labels given as tokens with their end-of-turn token.

    `prompts` are what follows the `beginning`, one token at least. What prompts share and what labels share is
    read once, label tokens in passes of about `pass_tokens`.

    Equal to scoring each label behind each prompt alone, but for labels that cannot matter: no label is likelier
    than its first tokens, so when all labels left together hold less than the tolerance they are read no further and
    get the log-probability of their first tokens. The likeliest label is always read, and softmax over the labels is
    within the tolerance of the exact probabilities, each of them. (Branch and bound: Land and Doig, 1960.) The
    tolerance is TOLERANCE, or TOLERANCE_OF_MANY for many labels; it depends on the labels alone.
    """
    rows = list(dict.fromkeys(map(tuple, prompts)))
    root = branch_of(dict(enumerate(labels)))
    # A pass costs as much as about a quarter of what it can hold: few label tokens are read with the prompts.
    together = len(rows) * tokens_of(root) <= pass_tokens // 4
    if together:
        scores = _exhaustive(model, rows, labels, beginning)
    else:
        scores = _branch_and_bound(model, rows, root, beginning, pass_tokens)
    positions = {row: position for position, row in enumerate(rows)}
    return torch.from_numpy(scores[[positions[tuple(prompt)] for prompt in prompts]])


def are_many(labels: Sequence[Sequence[int]]) -> bool:
    """Whether TOLERANCE_OF_MANY holds for these labels."""
    return tokens_of(branch_of(dict(enumerate(labels)))) > MANY_TOKENS


def _exhaustive(
    model: torch.nn.Module, rows: Sequence[tuple[int, ...]], labels: Sequence[Sequence[int]], beginning: CachedPrefix
) -> Scores:
    tree = build_tree((*row, *label[:-1]) for row in rows for label in labels)
    _, hidden = forward_tree(model, beginning, tree.tokens.tolist(), parents_after(beginning, tree))
    starts = [len(row) - 1 for row in rows for _ in labels]
    wanted = [*labels] * len(rows)
    asked = [
        list(zip(path[start:], label, strict=True))
        for path, start, label in zip(tree.paths, starts, wanted, strict=True)
    ]
    found = iter(_log_probabilities(model, hidden, [step for steps in asked for step in steps]))
    return np.array([sum(next(found) for _ in steps) for steps in asked]).reshape(len(rows), len(labels))


def _branch_and_bound(
    model: torch.nn.Module,
    rows: Sequence[tuple[int, ...]],
    root: Branch,
    beginning: CachedPrefix,
    pass_tokens: int,
) -> Scores:
    tree = build_tree(rows)
    reading, hidden = forward_tree(model, beginning, tree.tokens.tolist(), parents_after(beginning, tree))
    scores = np.full((len(rows), len(root.labels)), -np.inf)
    ends = [path[-1] for path in tree.paths]
    read = [_OpenBranch(row, root, len(beginning) + end, 0.0) for row, end in enumerate(ends)]
    many = tokens_of(root) > MANY_TOKENS
    opened = _expand(model, hidden, ends, read, len(beginning), scores)
    for group in _groups(opened, pass_tokens, FIRST_BEAM if many else None):
        _search(model, reading, group, scores, many)
    return scores


def tokens_of(branch: Branch) -> int:
    """How many tokens there are to read: all but the last one of each label, shared ones once."""
    return len(branch.tokens) + sum(map(tokens_of, branch.branches))


def branch_of(labels: Mapping[int, Sequence[int]], tokens: tuple[int, ...] = ()) -> Branch:
    """Lay labels, index to tokens still to come, out behind `tokens`; what all of them share is one branch."""
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
    """Branches of whole rows, so many at once that their first pass stays about the limit."""
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
    model: torch.nn.Module, reading: CachedPrefix, opened: Sequence[_OpenBranch], scores: Scores, many: bool
) -> None:
    """Read on along the branches until what is left unread cannot matter.

    `scores` are upper bounds, exact where nothing is open.
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
        offset = len(reading)
        reading, hidden = _read_branches(model, reading, chosen)
        ends = np.cumsum([len(one.branch.tokens) for one in chosen]) - 1
        waiting += _expand(model, hidden, ends.tolist(), chosen, offset, scores)


def _worth_reading(waiting: Sequence[_OpenBranch], scores: Scores, tolerance: float) -> list[_OpenBranch]:
    """The branches of a row from the likeliest down, without those at the end that hold less than the tolerance.

    As long as the best score of the row is a bound, the branch that it belongs to is worth it.
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


def _read_branches(
    model: torch.nn.Module, reading: CachedPrefix, chosen: Sequence[_OpenBranch]
) -> tuple[CachedPrefix, torch.Tensor]:
    tokens: list[int] = []
    parents: list[int] = []
    for one in chosen:
        first = len(reading) + len(tokens)
        tokens += one.branch.tokens
        parents += [one.position, *range(first, first + len(one.branch.tokens) - 1)]
    return forward_tree(model, reading, tokens, parents)


def _expand(
    model: torch.nn.Module,
    hidden: torch.Tensor,
    ends: Sequence[int],
    read: Sequence[_OpenBranch],
    offset: int,
    scores: Scores,
) -> list[_OpenBranch]:
    """Score what comes where the branches part, which is at `ends` of `hidden`, and return the branches behind.

    `offset` is the place of the first hidden state in its tree.
    """
    asked = [step for end, one in zip(ends, read, strict=True) for step in _steps(one.branch, end)]
    found = iter(_log_probabilities(model, hidden, asked))
    opened: list[_OpenBranch] = []
    for end, one in zip(ends, read, strict=True):
        here = one.bound + sum(next(found) for _ in one.branch.tokens[1:])
        for label in one.branch.ends:
            scores[one.row, label] = here + next(found)
        for branch in one.branch.branches:
            bound = here + next(found)
            scores[one.row, list(branch.labels)] = bound
            opened.append(_OpenBranch(one.row, branch, offset + end, bound))
    return opened


def _steps(branch: Branch, end: int) -> list[tuple[int, int]]:
    """(row of the hidden states, token to come): along the branch behind its first token, then all that may follow."""
    along = zip(range(end - len(branch.tokens) + 1, end), branch.tokens[1:], strict=True)
    after = [*branch.ends.values(), *(following.tokens[0] for following in branch.branches)]
    return [*along, *((end, token) for token in after)]


def _log_probabilities(model: torch.nn.Module, hidden: torch.Tensor, asked: Sequence[tuple[int, int]]) -> list[float]:
    """log p(token | hidden state of the row) for each step asked for, without holding all logits at once."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    rows, tokens = np.array(asked).T
    wanted, at = np.unique(rows, return_inverse=True)
    found = np.empty(len(asked))
    for first in range(0, len(wanted), LOGITS_ROWS):
        logits = head(hidden[torch.from_numpy(wanted[first : first + LOGITS_ROWS]).to(hidden.device)]).float()
        here = (at >= first) & (at < first + LOGITS_ROWS)
        row = torch.from_numpy(at[here] - first).to(logits.device)
        token = torch.from_numpy(tokens[here]).to(logits.device)
        found[here] = (logits[row, token] - logits.logsumexp(-1)[row]).cpu().numpy()
    return [float(value) for value in found]

"""From the votes of rules to the probability of each label.

Each rule has one accuracy, whatever the label, and abstains whatever the label is: the model of one coin of Dawid and
Skene (Applied Statistics 28 (1979) 20, doi:10.2307/2346806), as in Zhang et al., "Spectral methods meet EM" (NeurIPS
2014). Labels are taken to be equally frequent: if their ratios are estimated too, rules that name one label each make
one label take all. See docs/decisions/0024-rules-are-combined-by-one-accuracy-each.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpetune.rules.one_label import combine_one_label, name_one_label
from perpetune.rules.votes import ABSTAINED

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BELIEVED = 0.7  # how accurate a rule is before anything is known of it
_WEIGHT = 10.0  # votes that this belief is worth, besides as many as the rule has
_WEIGHT_OF_GOLD = 20.0  # the same beside gold
_LOWEST, _HIGHEST = 0.02, 0.98
_ROUNDS = 200
_ALIKE = 0.98  # rules that agree so often, where both vote, are one rule written twice
_SHARED = 20  # rows on which both must vote before that is said


@dataclass(frozen=True)
class Combined:
    """`probabilities`: (rows, labels); `accuracies`: (rules,); `weights`: 1, less for rules that are alike."""

    probabilities: Floats
    accuracies: Floats
    weights: Floats


def majority(votes: Ints, labels: int) -> Floats:
    """The ratio of each label among a row's votes, (rows, labels); uniform if none voted."""
    counts = _counts(votes, labels, np.ones(votes.shape[1]))
    voted = counts.sum(axis=1, keepdims=True)
    return np.where(voted > 0, counts / np.maximum(voted, 1), 1 / labels)


def combine(votes: Ints, labels: int, right: Ints | None = None) -> Combined:
    """Combine votes (rows, rules) over this number of labels.

    `right` (rows) is the index of the right label of gold rows, and ABSTAINED elsewhere. Accuracies are measured on gold
    if there is any; else they are found by expectation maximisation, from how rules agree or, if each names one label, from
    how often each votes (`one_label`).
    """
    weights = weights_of(votes)
    if right is not None and (right != ABSTAINED).any():
        accuracies = _measured(votes, right)
    elif name_one_label(votes):
        start = _smoothed(_counts(votes, labels, weights))
        return Combined(*combine_one_label(votes, labels, weights, start), weights)
    else:
        accuracies = _agreed(votes, labels, weights)
    return Combined(_posterior(votes, accuracies, labels, weights), accuracies, weights)


def _measured(votes: Ints, right: Ints) -> Floats:
    """The accuracies (rules) on gold, drawn to what is believed of any rule."""
    cast = (votes != ABSTAINED) & (right != ABSTAINED)[:, None]
    hits = (cast & (votes == right[:, None])).sum(axis=0)
    found = (hits + _BELIEVED * _WEIGHT_OF_GOLD) / (cast.sum(axis=0) + _WEIGHT_OF_GOLD)
    return np.asarray(np.clip(found, _LOWEST, _HIGHEST))


def _agreed(votes: Ints, labels: int, weights: Floats) -> Floats:
    """The accuracies (rules) under which the votes are likeliest, drawn to what is believed of any rule."""
    probabilities = _smoothed(_counts(votes, labels, weights))
    accuracies = _expected(votes, probabilities, labels)
    for _ in range(_ROUNDS):
        better = _expected(votes, _posterior(votes, accuracies, labels, weights), labels)
        if np.abs(better - accuracies).max(initial=0.0) < 1e-6:
            break
        accuracies = better
    return accuracies


def weights_of(votes: Ints) -> Floats:
    """1 for each rule, or its part of 1 if others vote as it does: a rule that is written twice says nothing new."""
    count = votes.shape[1]
    alike = np.eye(count, dtype=bool)
    for one in range(count):
        for other in range(one + 1, count):
            alike[one, other] = alike[other, one] = _is_alike(votes[:, one], votes[:, other])
    return np.asarray(1 / alike.sum(axis=1))


def _is_alike(one: Ints, other: Ints) -> bool:
    """Whether two rules vote on the same rows, for the same labels."""
    both, either = (one != ABSTAINED) & (other != ABSTAINED), (one != ABSTAINED) | (other != ABSTAINED)
    if both.sum() < _SHARED or both.sum() < _ALIKE * either.sum():
        return False
    return bool((one[both] == other[both]).mean() >= _ALIKE)


def _counts(votes: Ints, labels: int, weights: Floats) -> Floats:
    """The weighted votes for each label, (rows, labels)."""
    counts = np.zeros((len(votes), labels))
    for column, weight in zip(votes.T, weights, strict=True):
        rows = np.flatnonzero(column != ABSTAINED)
        counts[rows, column[rows]] += weight
    return counts


def _smoothed(counts: Floats) -> Floats:
    raised = counts + 1e-3
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _expected(votes: Ints, probabilities: Floats, labels: int) -> Floats:
    """The accuracies (rules) if each label of a row has its probability."""
    cast = votes != ABSTAINED
    rows = np.arange(len(votes))[:, None]
    hits = np.where(cast, probabilities[rows, np.where(cast, votes, 0)], 0.0).sum(axis=0)
    count = cast.sum(axis=0)
    belief = _WEIGHT + count
    return np.asarray(np.clip((hits + _BELIEVED * belief) / (count + belief), 1 / labels, _HIGHEST))


def _posterior(votes: Ints, accuracies: Floats, labels: int, weights: Floats) -> Floats:
    """The probability of each label (rows, labels); uniform if no rule votes."""
    scores = _counts(votes, labels, weights * np.log(accuracies * max(labels - 1, 1) / (1 - accuracies)))
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))

"""Labels from rules that each name one label: whether a rule is silent says something too.

Of such rules agreement says little of their accuracy: rules of different labels never agree, so that a rule would seem the
worse, the fewer others name its label. Instead each rule has two rates, at which it votes on rows of its label and on rows
of the others, and a row's rules count whether they vote or not: naive Bayes with hidden labels, which is the model of Dawid
and Skene with abstention as one of the answers. Labels are taken to be equally frequent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perpetune.rules.votes import ABSTAINED

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATIO = 6.0
"""How much likelier a rule is to vote on a row of its label, before anything is known of it."""
_ROUNDS = 100
_LOWEST, _HIGHEST = 0.001, 0.99


def name_one_label(votes: Ints) -> bool:
    """Whether no rule names two labels, and together they name more than one."""
    named = [set(column[column != ABSTAINED].tolist()) for column in votes.T]
    return all(len(each) <= 1 for each in named) and len(set().union(*named)) > 1


def combine_one_label(votes: Ints, labels: int, weights: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Probabilities (rows, labels) and the accuracies of the votes (rules), by expectation maximisation from `start`.

    A row without a vote, and a label that no rule names, get nothing from silence: the first is uniform, the second 0 if
    there is a vote. `weights` are those of rules that vote alike.
    """
    voted = votes != ABSTAINED
    label = np.array([column[cast][0] if cast.any() else -1 for column, cast in zip(votes.T, voted.T, strict=True)])
    own = label[None, :] == np.arange(labels)[:, None]
    rule_weights = weights * voted.any(axis=0)
    before = np.clip(voted.mean(axis=0) * labels / (1 + (labels - 1) / RATIO), 0.01, 0.95)
    unvoted = ~voted.any(axis=1)
    probabilities = start
    rates = _rates(voted, probabilities, own, before)
    for _ in range(_ROUNDS):
        better = _posterior(voted, rates, own, rule_weights)
        better[unvoted] = 1 / labels
        done = np.abs(better - probabilities).max(initial=0.0) < 1e-5
        probabilities, rates = better, _rates(voted, better, own, before)
        if done:
            break
    votes_of_label = np.maximum(voted.sum(axis=0), 1)
    hits = ((probabilities.T @ voted) * own).sum(axis=0)
    return probabilities, np.asarray(np.where(voted.any(axis=0), hits / votes_of_label, 1 / labels))


def _rates(voted: NDArray[np.bool_], probabilities: Floats, own: NDArray[np.bool_], before: Floats) -> Floats:
    """How often each rule votes on rows of each label, (labels, rules).

    All labels but its own share one rate. What is believed before counts as much as all rows do.
    """
    rows, labels = len(voted), len(own)
    cast, of_label = probabilities.T @ voted, probabilities.sum(axis=0)[:, None]
    inside = ((cast * own).sum(axis=0) + rows / labels * before) / ((of_label * own).sum(axis=0) + rows / labels)
    others = rows * (labels - 1) / labels
    outside = ((cast * ~own).sum(axis=0) + others * before / RATIO) / ((of_label * ~own).sum(axis=0) + others)
    return np.asarray(np.clip(np.where(own, inside, outside), _LOWEST, _HIGHEST))


def _posterior(voted: NDArray[np.bool_], rates: Floats, own: NDArray[np.bool_], weights: Floats) -> Floats:
    scores = voted @ (weights * np.log(rates / (1 - rates))).T + (weights * np.log(1 - rates)).sum(axis=1)
    scores[:, ~own.any(axis=1)] = -np.inf
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))

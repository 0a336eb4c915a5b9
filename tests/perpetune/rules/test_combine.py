from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from perpetune.rules.combine import combine, majority, weights_of
from perpetune.rules.votes import ABSTAINED

Ints = NDArray[np.int64]


def column(rng: np.random.Generator, truth: Ints, accuracy: float, coverage: float = 0.7) -> Ints:
    vote = np.where(rng.random(len(truth)) < accuracy, truth, 1 - truth)
    return np.where(rng.random(len(truth)) < coverage, vote, ABSTAINED)


def right(probabilities: NDArray[np.float64], truth: Ints, votes: Ints) -> float:
    """The accuracy on rows with a vote; ties are broken by chance."""
    noise = np.random.default_rng(0).uniform(0, 1e-9, probabilities.shape)
    voted = (votes != ABSTAINED).any(axis=1)
    return float(((probabilities + noise).argmax(axis=1) == truth)[voted].mean())


@pytest.mark.parametrize("seed", range(5))
def test_good_rules_count_for_more_than_bad_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 2000)
    votes = np.stack([column(rng, truth, each) for each in (0.9, 0.85, 0.6, 0.55, 0.55)], axis=1)
    found = combine(votes, 2)
    assert found.accuracies[:2].min() > found.accuracies[2:].max()
    assert right(found.probabilities, truth, votes) > right(majority(votes, 2), truth, votes) + 0.01


@pytest.mark.parametrize("seed", range(5))
def test_a_rule_written_three_times_counts_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 1000)
    votes = np.stack([column(rng, truth, each) for each in (0.9, 0.85, 0.8, 0.55)], axis=1)
    copied = np.column_stack([votes, votes[:, 3], votes[:, 3]])
    assert weights_of(copied).round(3).tolist() == [1, 1, 1, 0.333, 0.333, 0.333]
    assert np.allclose(combine(copied, 2).probabilities, combine(votes, 2).probabilities)


@pytest.mark.parametrize("seed", range(5))
def test_rules_that_name_one_label_each_do_not_make_one_label_take_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 1000)
    votes = np.stack(
        [np.where(rng.random(1000) < np.where(truth == each, 0.6, 0.05), each, ABSTAINED) for each in range(4)], axis=1
    )
    likeliest = combine(votes, 4).probabilities.argmax(axis=1)
    assert np.bincount(likeliest[(votes != ABSTAINED).any(axis=1)], minlength=4).min() > 100


@pytest.mark.parametrize("seed", range(5))
def test_rules_of_one_label_are_not_worse_for_being_alone(seed: int) -> None:
    """One good rule names label 0, three rules with many mistakes name label 1: numbers do not win."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 2000)
    rates = [(0, 0.7, 0.03), *[(1, 0.5, 0.25)] * 3]
    votes = np.stack(
        [
            np.where(rng.random(2000) < np.where(truth == each, found, wrong), each, ABSTAINED)
            for each, found, wrong in rates
        ],
        axis=1,
    )
    found = combine(votes, 2)
    assert right(found.probabilities, truth, votes) > right(majority(votes, 2), truth, votes) + 0.05
    assert found.accuracies[0] > found.accuracies[1:].max()


def test_a_label_that_no_rule_names_is_not_given_and_the_silence_of_rules_labels_no_row() -> None:
    rng = np.random.default_rng(3)
    votes = np.stack([np.where(rng.random(400) < 0.6, each, ABSTAINED) for each in (0, 0, 0, 1)], axis=1)
    found = combine(votes, 3).probabilities
    voted = (votes != ABSTAINED).any(axis=1)
    assert (found[voted, 2] == 0).all()
    assert np.allclose(found[~voted], 1 / 3) and (~voted).any()
    assert np.allclose(found.sum(axis=1), 1)


def test_gold_finds_a_rule_that_is_mostly_wrong() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 1000)
    votes = np.stack([column(rng, truth, 0.2, 1.0), column(rng, truth, 0.75, 1.0)], axis=1)
    gold = np.where(np.arange(1000) < 200, truth, ABSTAINED)
    found = combine(votes, 2, gold)
    assert found.accuracies[0] < 0.35 < 0.6 < found.accuracies[1]
    assert right(found.probabilities, truth, votes) > 0.75


def test_rows_that_no_rule_names_are_left_open() -> None:
    votes = np.array([[0, ABSTAINED], [ABSTAINED, ABSTAINED], [ABSTAINED, 2]])
    found = combine(votes, 3).probabilities
    assert found[1].tolist() == pytest.approx([1 / 3] * 3)
    assert found[0].argmax() == 0 and found[2].argmax() == 2


def test_a_single_rule_and_a_single_label_are_combined_too() -> None:
    assert combine(np.array([[0], [ABSTAINED]]), 1).probabilities.tolist() == [[1.0], [1.0]]

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from perpetune.statistics.two_sample import TwoSampleTest, classifier_test, nearest, neighbour_test, surplus_ratios

pytestmark = pytest.mark.slow

SIMULATIONS, LEVEL = 400, 0.05
TOO_MANY = LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / SIMULATIONS)  # three standard errors above the level


def run_test(
    features: np.ndarray,
    is_new: Sequence[bool],
    groups: Sequence[str] | None = None,
    seed: int = 0,
    permutations: int = 99,
) -> TwoSampleTest:
    own = [str(row) for row in range(len(features))]
    return classifier_test(features @ features.T, is_new, groups or own, permutations=permutations, seed=seed)


def alarms(rows: tuple[int, int], shift: float, seed: int) -> float:
    """The rate of alarms of samples of five normal features, the new one moved by `shift` in each."""
    chance, found = np.random.default_rng(seed), 0
    is_new = [False] * rows[0] + [True] * rows[1]
    for simulation in range(SIMULATIONS):
        features = chance.normal(size=(sum(rows), 5)) + shift * np.array(is_new)[:, None]
        found += run_test(features, is_new, seed=simulation).p_value <= LEVEL
    return found / SIMULATIONS


@pytest.mark.parametrize("rows", [(12, 6), (50, 15), (15, 50)])
def test_samples_of_one_distribution_alarm_at_most_at_the_level(rows: tuple[int, int]) -> None:
    assert alarms(rows, 0.0, seed=sum(rows)) <= TOO_MANY


def test_samples_of_two_distributions_are_told_apart() -> None:
    assert alarms((50, 25), 0.6, seed=1) > 0.9


def test_rows_of_a_group_count_together() -> None:
    """Documents of five rows each that resemble each other: taken as single rows they would alarm at every turn."""
    chance, single, together = np.random.default_rng(3), 0, 0
    groups = [str(row // 5) for row in range(150)]
    is_new = [row >= 100 for row in range(150)]
    for simulation in range(SIMULATIONS // 8):
        documents = np.repeat(chance.normal(size=(30, 5)), 5, axis=0)
        features = documents + 0.5 * chance.normal(size=documents.shape)
        together += run_test(features, is_new, groups, simulation).p_value <= LEVEL
        single += run_test(features, is_new, seed=simulation).p_value <= LEVEL
    assert together / (SIMULATIONS // 8) <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / (SIMULATIONS // 8))
    assert single > 4 * max(together, 1)


def test_predictions_are_those_of_fits_without_the_rows_group() -> None:
    """The closed form against 12 ridge regressions, fitted one by one."""
    from perpetune.statistics import two_sample

    chance = np.random.default_rng(5)
    features, labels = chance.normal(size=(36, 4)), np.repeat([0.0, 1.0], 18)
    features -= features.mean(axis=0)
    gram = features @ features.T
    hat = np.linalg.solve(gram + np.eye(36), gram)
    member = two_sample._positions([str(row // 3).zfill(2) for row in range(36)])
    found = two_sample._without_own_group(np.asarray(hat, dtype=np.float64), labels[:, None], member)[:, 0]
    for rows in member:
        others = np.setdiff1d(np.arange(36), rows)
        weights = np.linalg.solve(
            features[others].T @ features[others] + np.eye(4), features[others].T @ labels[others]
        )
        assert found[rows] == pytest.approx(features[rows] @ weights)


def test_a_group_with_rows_of_both_samples_and_features_without_variance_are_no_evidence() -> None:
    same = run_test(np.ones((20, 3)), [row >= 12 for row in range(20)], ["one"] * 20)
    assert same.p_value == 1.0
    assert run_test(np.zeros((20, 3)), [row >= 12 for row in range(20)]).p_value == 1.0


def test_the_same_data_give_the_same_answer() -> None:
    features = np.random.default_rng(1).normal(size=(40, 3))
    is_new = [row >= 20 for row in range(40)]
    assert run_test(features, is_new) == run_test(features, is_new)
    assert run_test(features, is_new).p_value >= 1 / 100


def neighbour_alarms(topics: int, new_topics: int, simulations: int, seed: int) -> float:
    """The rate of alarms at `LEVEL` if a tenth of 300 new rows are of `new_topics` that 200 known rows do not have.

    Rows are points around the centre of their topic, on the unit sphere.
    """
    chance, found = np.random.default_rng(seed), 0
    for simulation in range(simulations):
        centres = chance.normal(size=(topics + new_topics, 32))
        topic = chance.integers(0, topics, 500)
        if new_topics:
            topic[-30:] = topics + chance.integers(0, new_topics, 30)
        rows = centres[topic] + 0.7 * chance.normal(size=(500, 32))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        is_new = [False] * 200 + [True] * 300
        own = [str(row) for row in range(500)]
        tested = neighbour_test(nearest(rows @ rows.T, own, 10), is_new, own, permutations=99, seed=simulation)
        found += tested.p_value <= LEVEL
    return found / simulations


def test_neighbours_alarm_at_most_at_the_level_and_find_topics_in_a_tenth_of_the_rows() -> None:
    most = LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 200)
    assert neighbour_alarms(40, 0, 200, seed=5) <= most
    assert neighbour_alarms(40, 3, 40, seed=6) >= 0.9


def test_only_a_surplus_of_new_neighbours_is_evidence() -> None:
    new, chance = np.array([[0.0], [5.0], [6.0], [10.0]]), np.array([0.5])
    found = surplus_ratios(new, np.array([[10.0]]), chance).ravel()
    assert found[0] == found[1] == 0.0
    assert found[2] == pytest.approx(6 * np.log(1.2) + 4 * np.log(0.8))
    assert found[3] == pytest.approx(10 * np.log(2))
    assert surplus_ratios(np.zeros((1, 1)), np.zeros((1, 1)), chance)[0, 0] == 0.0, "a row without neighbours"

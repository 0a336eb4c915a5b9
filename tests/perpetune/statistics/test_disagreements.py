"""Comparisons from the labels of rows that are answered differently."""

from __future__ import annotations

import numpy as np
import pytest

from perpetune.statistics.disagreements import Disagreements, compare_disagreements, gain_labels, guard_labels

SIMULATED = 2000


def drawn(rng: np.random.Generator, better: float, worse: float, ties: float, rows: int, labels: int) -> Disagreements:
    """A sample of rows with these probabilities, of whose disagreements so many are labelled."""
    ups, downs, both_wrong, _ = rng.multinomial(rows, [better, worse, ties, 1 - better - worse - ties])
    differing = np.repeat([1.0, -1.0, 0.0], [ups, downs, both_wrong])
    labelled = rng.choice(differing, min(labels, len(differing)), replace=False)
    return Disagreements(rows, len(differing), tuple(labelled.tolist()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("better", "worse", "ties", "rows", "labels"),
    [(0.05, 0.05, 0, 1700, 150), (0.08, 0.03, 0, 1500, 60), (0.02, 0.05, 0.05, 1700, 150), (0.02, 0.02, 0, 500, 20)],
)
def test_intervals_and_tests_hold_their_level(better: float, worse: float, ties: float, rows: int, labels: int) -> None:
    rng, true = np.random.default_rng(4), better - worse
    found = [compare_disagreements(drawn(rng, better, worse, ties, rows, labels), 0.95) for _ in range(SIMULATED)]
    assert np.mean([one.low <= true <= one.high for one in found]) > 0.94
    assert np.mean([one.low > true for one in found]) < 0.035
    if true <= 0:
        assert np.mean([one.p_value < 0.05 for one in found]) < 0.06


def test_a_gain_of_five_points_is_shown_by_fifty_labels() -> None:
    rng = np.random.default_rng(5)
    found = [compare_disagreements(drawn(rng, 0.08, 0.03, 0, 1500, 50), 0.95) for _ in range(500)]
    assert np.mean([one.p_value < 0.05 for one in found]) > 0.9
    assert gain_labels(0.11, 0.05, alpha=0.05, power=0.9) is not None


def test_equal_systems_are_within_the_margin_by_150_labels() -> None:
    rng = np.random.default_rng(6)
    found = [compare_disagreements(drawn(rng, 0.05, 0.05, 0, 2000, 150), 0.95) for _ in range(500)]
    assert np.mean([one.low > -0.03 for one in found]) > 0.9
    assert guard_labels(2000, 0.1, 0.03, alpha=0.025, power=0.9) == pytest.approx(115, abs=15)


def test_without_labels_the_difference_is_within_the_ratio_of_differing_rows() -> None:
    found = compare_disagreements(Disagreements(1000, 20, ()), 0.95)
    assert -0.035 < found.low < -0.02 < 0.02 < found.high < 0.035
    assert found.p_value == 1
    alike = compare_disagreements(Disagreements(1000, 0, ()), 0.95)
    assert alike.low == pytest.approx(-0.0037, abs=1e-4) and alike.high == -alike.low
    assert guard_labels(1000, 0.01, 0.03, alpha=0.025, power=0.9) == 0, "so few differ that no label is needed"


def test_more_labels_narrow_the_interval_and_their_order_does_not_matter() -> None:
    few, many = (compare_disagreements(Disagreements(1000, 200, (1.0, -1.0) * count), 0.95) for count in (15, 60))
    assert few.low < many.low < many.high < few.high
    mixed = [1.0] * 30 + [-1.0] * 20 + [0.0] * 10
    assert compare_disagreements(Disagreements(1000, 200, tuple(mixed)), 0.95) == compare_disagreements(
        Disagreements(1000, 200, tuple(reversed(mixed))), 0.95
    )


def test_graded_scores_are_compared_by_betting() -> None:
    rng = np.random.default_rng(7)
    level, skewed = [], np.array([0.05] * 95 + [-0.95] * 5)
    for _ in range(500):
        found = compare_disagreements(Disagreements(1000, 300, tuple(rng.choice(skewed, 50).tolist())), 0.95)
        level.append((found.p_value < 0.05, found.low > 0))
    assert np.mean(level, axis=0).max() <= 0.05


def test_a_gain_above_the_ratio_of_differing_rows_cannot_be_shown() -> None:
    assert gain_labels(0.02, 0.05, alpha=0.05, power=0.9) is None
    with pytest.raises(ValueError, match="no rows"):
        compare_disagreements(Disagreements(0, 0, ()), 0.95)


@pytest.mark.slow
def test_rare_and_dear_differences_that_are_all_labelled_hold_their_level_and_need_no_bound_of_the_ratio() -> None:
    """Of 2,000 rows five are lost and five won at the largest cost, and 95 differ by a fiftieth."""
    rng, simulated = np.random.default_rng(58), 300
    low, covered = [], 0
    for _ in range(simulated):
        up, down, cheap = (int(rng.poisson(mean)) for mean in (5, 5, 95))
        found = Disagreements(
            2000, up + down + cheap, (*[1.0] * up, *[-1.0] * down, *[0.02, -0.02] * (cheap // 2), *[0.02] * (cheap % 2))
        )
        interval = compare_disagreements(found, 0.9)
        low.append(interval.low)
        covered += interval.low <= 0.0 <= interval.high
    assert covered >= 0.9 * simulated
    assert float(np.mean(np.array(low) > -0.007)) > 0.5

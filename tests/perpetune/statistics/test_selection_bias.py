"""Bounds on the bias of labels that some requests have: right values for each kind of evidence."""

from __future__ import annotations

import numpy as np
import pytest

from perpetune.statistics.selection_bias import Bias, bias_by_answers, bias_by_confidence, bias_by_lot, pooled

LEVEL = 0.05


def test_scores_by_lot_show_what_unasked_labels_are_biased_by() -> None:
    unasked, by_lot = [1.0] * 300 + [0.0] * 300, [(1.0, 1.0)] * 400 + [(0.0, 1.0)] * 100
    found = bias_by_lot(unasked, by_lot, LEVEL)
    assert found is not None and found.estimate == pytest.approx(0.5 - 0.8) and found.shown
    half = 1.6449 * np.sqrt(0.25 / 600 + 0.16 / 500)
    assert (found.low, found.high) == pytest.approx((-0.3 - half, -0.3 + half), abs=1e-3), "but for the skewness"
    assert bias_by_lot(unasked[:19], by_lot, LEVEL) is None and bias_by_lot(unasked, by_lot[:19], LEVEL) is None


def test_labels_by_lot_count_with_their_weight() -> None:
    """Half of the lot was drawn for doubt, four times as often, and is wrong: it weighs a quarter."""
    by_lot = [(1.0, 1.0)] * 200 + [(0.0, 0.25)] * 200
    found = bias_by_lot([1.0] * 160 + [0.0] * 40, by_lot, LEVEL)
    assert found is not None and found.estimate == pytest.approx(0.8 - 0.8) and not found.shown


def test_a_few_labels_that_are_all_right_show_little() -> None:
    """A normal approximation finds no spread in them and would call them equivalent."""
    found = bias_by_lot([1.0] * 50, [(1.0, 1.0)] * 50, LEVEL)
    assert found is not None and found.estimate == 0 and not found.within(0.2) and found.within(0.25)


@pytest.mark.slow
def test_the_interval_covers_the_bias_at_50_skewed_scores() -> None:
    """One answer in 20 loses most of its score, in both alike."""
    rng, above, below = np.random.default_rng(5), 0, 0
    for _ in range(300):
        scores = 1 - rng.beta(5, 1, 100) * (rng.random(100) < 0.05)
        found = bias_by_lot(scores[:50].tolist(), [(float(score), 1.0) for score in scores[50:]], LEVEL)
        assert found is not None
        above, below = above + (found.low > 0), below + (found.high < 0)
    assert max(above, below) <= 15 + 6


# The veto by predicted label: what the mix of answers alone may do to the mean.
ANSWERS = [("refund", 1.0)] * 900 + [("refund", 0.0)] * 100 + [("other", 1.0)] * 500 + [("other", 0.0)] * 500


def test_the_mix_of_answers_is_the_bias_that_it_explains() -> None:
    """Labelled: half "refund" (right in 90%), half "other" (50%). The rest: only "other", twice as many requests."""
    found = bias_by_answers(ANSWERS, ["other"] * 4000, LEVEL)
    assert found is not None
    refund, other = (900 + 10 * 0.7) / 1010, (500 + 10 * 0.7) / 1010
    # What is labelled is a third of all: its mean less that of all is two thirds of the difference.
    assert found.estimate == pytest.approx((refund - other) / 2 * 4000 / 6000)
    assert found.low < found.estimate < found.high and found.shown and not found.within(0.025)


def test_the_same_mix_of_answers_is_no_bias() -> None:
    found = bias_by_answers(ANSWERS, ["other", "refund"] * 2000, LEVEL)
    assert found is not None and found.estimate == pytest.approx(0, abs=1e-12) and found.within(0.025)


def test_an_answer_without_labels_counts_with_the_mean_and_few_are_shrunk_to_it() -> None:
    found = bias_by_answers(ANSWERS, ["new"] * 2000, LEVEL)
    assert found is not None and found.estimate == pytest.approx(0, abs=1e-12)
    one = [("rare", 0.0), *ANSWERS]
    mean = 1400 / 2001
    expected = np.mean([10 * mean / 11, *([(900 + 10 * mean) / 1010] * 1000), *([(500 + 10 * mean) / 1010] * 1000)])
    found = bias_by_answers(one, ["rare"] * 2001, LEVEL)
    assert found is not None and found.estimate == pytest.approx((expected - 10 * mean / 11) / 2)
    assert bias_by_answers(ANSWERS[:19], ["other"] * 50, LEVEL) is None


def test_a_difference_of_confidence_is_scaled_by_what_confidence_says_of_right_answers() -> None:
    """Right answers 0.9 sure, wrong ones 0.5: 0.02 less confidence is 0.05 fewer right answers, of which half is labelled."""
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 0.05, 1000)
    known = [(0.9 + each, 1.0) for each in noise[:800]] + [(0.5 + each, 0.0) for each in noise[800:]]
    labelled = [confidence for confidence, _ in known]
    slope = np.polyfit([score for _, score in known], labelled, 1)[0]
    found = bias_by_confidence(labelled, [each + 0.02 for each in labelled], known, LEVEL)
    assert found is not None and found.estimate == pytest.approx(-0.02 / slope / 2)
    assert found.low < found.estimate < found.high


def test_confidence_that_says_nothing_or_of_few_wrong_answers_bounds_nothing() -> None:
    rng = np.random.default_rng(7)
    sure = rng.uniform(0.5, 1, 1000).tolist()
    assert bias_by_confidence(sure, sure, [(each, float(place % 2)) for place, each in enumerate(sure)], LEVEL) is None
    few_wrong = [(each, float(place >= 20)) for place, each in enumerate(sure)]
    assert bias_by_confidence(sure, sure, few_wrong, LEVEL) is None, "20 wrong answers say too little of the slope"


def test_estimates_are_pooled_by_inverse_variance() -> None:
    """Half as wide counts four times: -0.02 of width 0.02 and 0.03 of width 0.04."""
    found = pooled(Bias(-0.02, -0.03, -0.01), Bias(0.03, 0.01, 0.05), LEVEL)
    assert found.estimate == pytest.approx((4 * -0.02 + 0.03) / 5)
    half = 0.01 * 0.02 / np.hypot(0.01, 0.02)
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half))
    swapped = pooled(Bias(0.03, 0.01, 0.05), Bias(-0.02, -0.03, -0.01), LEVEL)
    assert (swapped.low, swapped.high) == pytest.approx((found.low, found.high))


def test_a_pool_is_narrower_than_either_and_may_show_what_neither_does() -> None:
    one, other = Bias(0.012, -0.018, 0.042), Bias(-0.01, -0.04, 0.02)
    assert not one.within(0.025) and not other.within(0.025) and pooled(one, other, LEVEL).within(0.025)

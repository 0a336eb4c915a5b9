from __future__ import annotations

import numpy as np
import pytest

from perpetune.errors import PerpetuneError
from perpetune.params import Params
from perpetune.replay.calibrate import calibrate
from perpetune.replay.resample import alarm_rate, block_bootstrap, first_alarms, with_drop

pytestmark = pytest.mark.slow


def scores(n: int, mean: float, seed: int = 7) -> list[float]:
    return [float(drawn < mean) for drawn in np.random.default_rng(seed).random(n)]


def test_the_run_length_is_the_labels_of_a_year_over_the_budget(params: Params) -> None:
    found = calibrate(scores(1000, 0.9), 200, 300, 2, params)

    assert found.run_length == round(365 * 5 / 2)
    assert found.settings["watch.run_length"] == found.run_length
    assert found.false_alarms.high <= 2
    assert 50 <= found.window <= 1000
    ten = found.delays[-1]
    assert ten.labels is not None and ten.labels.low <= ten.labels.value <= ten.labels.high


def test_larger_drops_are_found_sooner_and_more_surely(params: Params) -> None:
    three, five, ten = calibrate(scores(2000, 0.9), 20, 400, 1, params).delays

    assert three.found.value <= five.found.value <= ten.found.value
    assert five.labels is not None and ten.labels is not None
    assert ten.labels.value < five.labels.value


def test_a_period_with_a_drop_gives_a_warning(params: Params) -> None:
    fallen = [*scores(800, 0.95), *scores(800, 0.5)]
    stable = scores(1600, 0.95)

    assert any("not stable" in warning for warning in calibrate(fallen, 160, 300, 1, params).warnings)
    assert not any("not stable" in warning for warning in calibrate(stable, 160, 300, 1, params).warnings)


def test_a_short_period_gives_a_warning_or_an_error(params: Params) -> None:
    warnings = calibrate(scores(100, 0.9), 10, 50, 1, params).warnings

    assert any("use at least 200" in warning for warning in warnings)
    with pytest.raises(PerpetuneError, match="too few for a calibration"):
        calibrate(scores(10, 0.9), 10, 50, 1, params)
    with pytest.raises(PerpetuneError, match="too few to detect decay"):
        calibrate(scores(100, 0.9), 1000, 50, 10, params)


def test_resampling_keeps_neighbours_together() -> None:
    rng = np.random.default_rng(7)
    made = block_bootstrap(np.arange(1000.0) / 1000, 20, 500, rng)

    assert made.shape == (20, 500)
    steps = np.diff(made, axis=1)
    assert np.mean(np.isclose(steps, 0.001)) > 0.85


def test_a_drop_lowers_the_mean_by_its_size() -> None:
    rng = np.random.default_rng(7)
    rows = (rng.random((200, 1000)) < 0.8).astype(float)

    assert rows.mean() - with_drop(rows, 0.1, rng).mean() == pytest.approx(0.1, abs=0.01)


def test_alarms_are_counted_over_the_labels_seen_until_then() -> None:
    rate, low, high = alarm_rate(np.array([100.0, np.inf]), 900, 0.95)

    assert rate == 1 / 1000
    assert low < rate < high


def test_alarms_come_at_the_first_check_that_reaches_the_run_length() -> None:
    evidence = np.array([[0.0, 5.0, 1000.0, 2.0], [0.0, 999.9, 1.0, 3.0]])

    assert first_alarms(evidence, 1000, every=10).tolist() == [30, np.inf]


def test_labels_alike_in_runs_need_a_longer_run_length(params: Params) -> None:
    bursts = [score for score in scores(300, 0.85) for _ in range(5)]

    alike, alone = (calibrate(each, 50, 300, 1, params) for each in (bursts, scores(1500, 0.85)))
    assert alone.run_length == 365 * 30 < alike.run_length

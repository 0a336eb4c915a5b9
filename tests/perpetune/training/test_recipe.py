from __future__ import annotations

import pytest

from perpetune.params import TrainParams
from perpetune.training.recipe import batch_size, explicit, learning_rate, time_limit


@pytest.fixture
def auto(train_params: TrainParams) -> TrainParams:
    return train_params.model_copy(update={"learning_rate": "auto", "batch_size": "auto", "epochs": "auto"})


def test_wider_models_learn_slower(auto: TrainParams) -> None:
    rates = [learning_rate(auto, width) for width in (576, 2048, 4096)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(5.3e-4, rel=0.01)
    assert rates[2] == pytest.approx(1.1e-4, rel=0.05)


def test_full_fine_tuning_takes_a_tenth_of_the_rate_of_an_adapter(auto: TrainParams) -> None:
    full = auto.model_copy(update={"method": "full"})
    assert learning_rate(full, 2048) == pytest.approx(0.1 * learning_rate(auto, 2048))


def test_batches_grow_with_the_rows(auto: TrainParams) -> None:
    assert [batch_size(auto, rows) for rows in (100, 200, 201, 3000)] == [8, 8, 16, 32]


def test_a_run_on_a_cpu_ends_within_minutes_and_one_on_a_gpu_when_it_is_done(auto: TrainParams) -> None:
    unset = auto.model_copy(update={"minutes": "auto"})
    assert (time_limit(unset, "cpu"), time_limit(unset, "cuda")) == (3.0, None)
    assert time_limit(auto.model_copy(update={"minutes": 9.0}), "cpu") == 9.0
    assert time_limit(auto.model_copy(update={"minutes": None}), "cpu") is None


def test_a_number_is_taken_as_it_is(train_params: TrainParams) -> None:
    assert learning_rate(train_params, 4096) == train_params.learning_rate
    assert batch_size(train_params, 3000) == train_params.batch_size


def test_a_search_starts_with_numbers(auto: TrainParams) -> None:
    found = explicit(auto, 576)
    assert found.learning_rate == learning_rate(auto, 576)
    assert found.epochs == 3

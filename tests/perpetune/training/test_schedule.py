from __future__ import annotations

from dataclasses import asdict

import pytest

from perpetune.params import TrainParams
from perpetune.training.schedule import MAX_STEPS, MIN_STEPS_BEFORE_COOLDOWN, Schedule, fewest_steps, schedule_of


def auto(params: TrainParams, rows: int = 800, **update: object) -> Schedule:
    section = params.model_copy(update={"epochs": "auto", **update})
    return schedule_of(rows, section, 8, validates=True)


def run(schedule: Schedule, losses: dict[int, float], time_is_up_at: int = 10**9) -> tuple[Schedule, list[float]]:
    """The schedule at the end, and the rate of every step, if validation finds these losses (later ones: worse)."""
    rates: list[float] = []
    best, best_step, step = float("inf"), 0, 0
    while step < schedule.steps:
        step += 1
        rates.append(schedule.rate(step))
        if step in schedule.validate_at and losses.get(step, 9.0) < best:
            best, best_step = losses.get(step, 9.0), step
        schedule = schedule.after(step, best_step, time_is_up=step >= time_is_up_at)
    return schedule, rates


def test_a_number_of_epochs_is_a_cosine_down_to_nothing(train_params: TrainParams) -> None:
    schedule = schedule_of(100, train_params.model_copy(update={"epochs": 2.0}), 10, validates=True)
    _, rates = run(schedule, {})
    assert len(rates) == 20
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert schedule.validate_at == (4, 8, 12, 16, 20)


def test_auto_cools_down_once_validation_is_stale(train_params: TrainParams) -> None:
    """Better until step 300: at the second validation from there, at 500, the rate falls for a fifth of the steps so far."""
    schedule = auto(train_params)
    end, rates = run(schedule, {100: 3.0, 200: 2.0, 300: 1.0, 400: 1.5, 500: 1.5})
    assert len(rates) == end.steps == 600
    assert set(rates[6:500]) == {1.0}
    assert rates[500:] == sorted(rates[500:], reverse=True)
    assert 0 < rates[-1] < 0.02
    assert end.validate_at[-1] == 600


def test_however_little_time_there_is_some_steps_are_taken(train_params: TrainParams) -> None:
    schedule = auto(train_params)
    end, rates = run(schedule, {}, time_is_up_at=1)
    assert len(rates) == end.steps == fewest_steps(schedule) == 72


def test_auto_continues_while_it_improves_up_to_the_maximum(train_params: TrainParams) -> None:
    schedule = auto(train_params)
    end, rates = run(schedule, {step: 1 / step for step in range(1, 2000)})
    assert len(rates) == schedule.steps == end.steps == 1000
    assert set(rates[6 : schedule.cooling_from]) == {1.0}
    assert rates[-1] < 0.02


def test_auto_never_takes_fewer_steps_than_the_rows_need(train_params: TrainParams) -> None:
    """Of 24 rows every third step is an epoch: what is stale at once is trained on for a while nevertheless."""
    end, rates = run(auto(train_params, rows=24), {})
    assert len(rates) >= MIN_STEPS_BEFORE_COOLDOWN
    assert auto(train_params, rows=24).steps == MAX_STEPS
    assert end.steps < MAX_STEPS


def test_auto_cools_down_in_time(train_params: TrainParams) -> None:
    end, rates = run(auto(train_params), {step: 1 / step for step in range(1, 2000)}, time_is_up_at=150)
    assert len(rates) == end.steps == 180


def test_auto_takes_its_least_steps_however_little_time_there_is(train_params: TrainParams) -> None:
    end, rates = run(auto(train_params), {step: 1 / step for step in range(1, 2000)}, time_is_up_at=1)
    assert len(rates) == end.steps == MIN_STEPS_BEFORE_COOLDOWN * 1.2


def test_auto_without_validation_is_a_fixed_number_of_epochs(train_params: TrainParams) -> None:
    section = train_params.model_copy(update={"epochs": "auto"})
    schedule = schedule_of(800, section, 8, validates=False)
    assert (schedule.steps, schedule.validate_at) == (300, ())
    assert schedule.after(299, 0, time_is_up=False) == schedule


def test_patience_is_a_setting(train_params: TrainParams) -> None:
    impatient, _ = run(auto(train_params, early_stopping_patience=1), {100: 1.0, 200: 2.0})
    patient, _ = run(auto(train_params, early_stopping_patience=3), {100: 1.0, 200: 2.0, 300: 2.0})
    assert (impatient.steps, patient.steps) == (240, 480)


def test_it_is_written_and_read_as_plain_values(train_params: TrainParams) -> None:
    schedule = auto(train_params).after(500, 100, time_is_up=True)
    assert Schedule(**asdict(schedule)) == schedule

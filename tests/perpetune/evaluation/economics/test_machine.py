from __future__ import annotations

import numpy as np
import pytest

from perpetune.evaluation.economics.machine import MachineUse, fully_used

TENTH = np.array([0.1, 0.1])
ONE_DOLLAR_A_DAY = 1 / 24


def test_a_busy_machine_costs_the_seconds_that_it_works() -> None:
    assert fully_used(3.6).dollars(TENTH).tolist() == pytest.approx([0.0001, 0.0001])


def test_a_machine_that_works_a_twentieth_of_the_time_costs_twenty_times_as_much() -> None:
    assert MachineUse(0.05, 3.6, "setting").dollars(TENTH).tolist() == pytest.approx([0.002, 0.002])


def test_the_requests_of_a_day_pay_for_the_whole_day_whatever_system_answers_them() -> None:
    machine = MachineUse(0.05, ONE_DOLLAR_A_DAY, "measured", requests_per_day=100, days=10)
    assert machine.dollars(TENTH).tolist() == pytest.approx([0.01, 0.01])
    assert machine.dollars(np.array([5.0, 60.0])).tolist() == pytest.approx([0.01, 0.01])
    assert machine.idles(TENTH)


def test_requests_that_take_more_than_the_day_pay_for_more_machines() -> None:
    machine = MachineUse(0.9, ONE_DOLLAR_A_DAY, "measured", requests_per_day=86_400, days=10)
    assert machine.dollars(np.array([1.0, 3.0])).tolist() == pytest.approx([1 / 86_400, 3 / 86_400])
    assert not machine.idles(np.array([1.0, 3.0]))

"""Dollars, requests and the cost of right answers in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perpetune.evaluation.economics.equal_quality import CheaperFrom, SystemCost
from perpetune.evaluation.economics.machine import MachineUse
from perpetune.statistics.estimate import Estimate

MINUS = "\N{MINUS SIGN}"


def dollars(amount: float) -> str:
    """Dollars to three significant figures, without scientific notation."""
    if amount == 0:
        return "$0"
    decimals = max(2, 2 - math.floor(math.log10(abs(amount))))
    sign = MINUS if amount < 0 else ""
    return f"{sign}${abs(amount):,.{decimals}f}"


def dollars_between(estimate: Estimate) -> str:
    """As "$0.30 ($0.28 to $0.32)"; the value alone if the interval has no width that shows."""
    low, high = dollars(estimate.low), dollars(estimate.high)
    return dollars(estimate.value) + ("" if low == high else f" ({low} to {high})")


def requests_text(requests: float | None) -> str:
    """A number of requests to three significant figures; None is "never"."""
    if requests is None:
        return "never"
    whole = math.ceil(requests)
    return f"{round(whole, -max(0, len(str(whole)) - 3)):,}"


def machine_sentence(machine: MachineUse) -> str:
    """What the costs of the own machine assume, and why."""
    price, works = f"{dollars(machine.dollars_per_hour)} an hour", f"works {machine.utilisation:.1%} of the paid time"
    if machine.source == "measured" and machine.requests_per_day and machine.days:
        return (
            f"The machine costs {price} and {works}: {machine.days:,.1f} days of the prediction log have "
            f"{requests_text(machine.requests_per_day)} requests a day, which pay for its idle time too."
        )
    if machine.source == "setting":
        return f"The machine costs {price} and {works} (economics.utilisation)."
    return (
        f"The machine costs {price} and is taken as busy all the time, because the prediction log holds less than a day "
        "of requests; economics.utilisation says otherwise."
    )


def right_answers_sentence(systems: Sequence[SystemCost]) -> str | None:
    """The cost of 1,000 right answers with each system whose accuracy is known; None if none is."""
    right = [_right(cost) for cost in systems if cost.dollars_per_1000_right is not None]
    wrong = [cost.name for cost in systems if cost.accuracy is not None and cost.dollars_per_1000_right is None]
    priced = f"1,000 right answers cost {', '.join(right)}." if right else None
    none = f"No answer of {' or '.join(wrong)} is right." if wrong else None
    return " ".join(filter(None, (priced, none))) or None


def _right(cost: SystemCost) -> str:
    assert cost.accuracy is not None and cost.dollars_per_1000_right is not None
    return (
        f"{dollars_between(cost.dollars_per_1000_right)} with {cost.name} (right on {100 * cost.accuracy.value:.1f}%)"
    )


def cheaper_sentence(found: CheaperFrom, larger: str, machine: MachineUse) -> str:
    """From how many requests a day the challenger is cheaper per right answer, and how the accuracies compare."""
    return f"{_cheaper(found, larger, machine)} {_compared(found, larger)}"


def _cheaper(found: CheaperFrom, larger: str, machine: MachineUse) -> str:
    day = f"one machine for {dollars(machine.dollars_per_day)} a day"
    answers = "" if found.capacity is None else f"; it answers at most {_round_down(found.capacity)} a day"
    if not found.possible:
        wanted = requests_text(found.requests_per_day.value)
        return (
            f"The challenger on {day} is at no rate cheaper than {larger} for a right answer: "
            f"that takes {wanted} requests a day{answers}."
        )
    requests = found.requests_per_day
    between = (
        f" ({requests_text(requests.low)} to {requests_text(requests.high)})" if requests.low < requests.high else ""
    )
    return (
        f"From {requests_text(requests.value)} requests a day{between} the challenger on {day} is cheaper than {larger} "
        f"for a right answer{answers}."
    )


def _compared(found: CheaperFrom, larger: str) -> str:
    if found.difference is None:
        return f"The accuracy of {larger} is taken as equal: evaluate.recorded with its answers would measure it."
    low, value, high = (
        f"{100 * number:.1f}".replace("-", MINUS)
        for number in (found.difference.low, found.difference.value, found.difference.high)
    )
    shown = "shown to be less accurate" if found.worse else "not shown to be less accurate"
    return f"It is {shown}: {value} points ({low} to {high}, n = {found.difference.n:,})."


def _round_down(requests: float) -> str:
    whole = math.floor(requests)
    step = 10 ** max(0, len(str(whole)) - 3)
    return f"{whole // step * step:,}"

from __future__ import annotations

import pytest

from perpetune.evaluation.economics.equal_quality import (
    CheaperFrom,
    LargerModelUsage,
    cheaper_from,
    system_costs,
)
from perpetune.evaluation.economics.machine import MachineUse, fully_used
from perpetune.evaluation.economics.usage import Usage
from perpetune.evaluation.economics.wording import cheaper_sentence, machine_sentence, right_answers_sentence
from perpetune.params import EvaluateParams

DAY = MachineUse(0.05, 1.0, "measured", requests_per_day=24_000, days=12.5)  # $24 a day, so a tenth of a cent a request


def used(scores: tuple[float, ...], seconds: float = 0.1, batches: tuple[str | None, ...] = ()) -> Usage:
    rows = len(scores)
    return Usage((seconds,) * rows, (60,) * rows, (1,) * rows, scores, batches)


def test_a_right_answer_costs_more_the_fewer_are_right(params: EvaluateParams) -> None:
    usage = {"base": used((1, 0, 0, 0)), "challenger": used((1, 1, 1, 0))}
    base, challenger = system_costs(usage, {"base": "the base", "challenger": "ours"}, DAY, None, params)

    assert (base.dollars_per_1000.value, challenger.dollars_per_1000.value) == pytest.approx((1, 1))
    assert base.dollars_per_1000_right is not None and challenger.dollars_per_1000_right is not None
    assert base.dollars_per_1000_right.value == pytest.approx(4)
    assert challenger.dollars_per_1000_right.value == pytest.approx(4 / 3)
    assert challenger.dollars_per_1000_right.low < 4 / 3 < challenger.dollars_per_1000_right.high
    assert right_answers_sentence((base,)) is not None


def test_batches_count_for_seconds_and_not_for_what_is_right(params: EvaluateParams) -> None:
    right = (1.0, 0.0, 1.0, 1.0) * 10
    together, alone = (
        system_costs({"base": used(right, batches=each)}, {"base": "it"}, DAY, None, params)[0]
        for each in (("one",) * 40, ())
    )
    assert together == alone


def test_no_right_answer_has_no_price(params: EvaluateParams) -> None:
    [found] = system_costs({"base": used((0, 0))}, {"base": "the base"}, DAY, None, params)
    assert found.dollars_per_1000_right is None
    assert right_answers_sentence((found,)) == "No answer of the base is right."


def test_rows_of_one_batch_are_one_observation(params: EvaluateParams) -> None:
    seconds = (0.1,) * 50 + (0.2,) * 50
    batches = ("a",) * 50 + ("b",) * 50
    narrow, wide = (
        system_costs(
            {"base": Usage(seconds, (1,) * 100, (1,) * 100, batches=each)},
            {"base": "it"},
            fully_used(3.6),
            None,
            params,
        )[0].dollars_per_1000
        for each in ((), batches)
    )
    assert (narrow.n, wide.n) == (100, 2)
    assert narrow.high - narrow.low < 0.05 < wide.high - wide.low


def test_the_larger_model_is_right_as_its_recorded_answers_are(params: EvaluateParams) -> None:
    larger = LargerModelUsage("large", (0.002,) * 4, (1.0, None, 0.0, None))
    found = system_costs({"challenger": used((1, 1, 1, 1))}, {"challenger": "ours"}, DAY, larger, params)[-1]

    assert found.name == "large"
    assert found.dollars_per_1000.value == pytest.approx(2)
    assert found.accuracy is not None and (found.accuracy.value, found.accuracy.n) == (0.5, 2)
    assert found.dollars_per_1000_right is not None
    assert found.dollars_per_1000_right.value == pytest.approx(4)


def test_the_machine_is_cheaper_from_where_its_day_buys_fewer_right_answers(params: EvaluateParams) -> None:
    # $24 a day buy 12,000 requests at $0.002; the larger model is right on 3 of 4 where the challenger is on 2.
    larger = LargerModelUsage("large", (0.002,) * 4, (1.0, 1.0, 1.0, 0.0))
    found = cheaper_from(used((1, 0, 1, 0)), DAY, larger, params)

    assert found is not None and found.possible
    assert found.requests_per_day.value == pytest.approx(12_000 * 3 / 2)
    assert found.requests_per_day.low < 18_000 < found.requests_per_day.high
    assert found.capacity == pytest.approx(864_000)
    assert found.difference is not None and found.difference.value == pytest.approx(-0.25)
    assert cheaper_sentence(found, "large", DAY).startswith("From 18,000 requests a day (")


def test_the_answers_of_the_larger_model_are_not_known(params: EvaluateParams) -> None:
    found = cheaper_from(used((1, 0)), DAY, LargerModelUsage("large", (0.001, 0.003)), params)
    assert found is not None and found.requests_per_day.value == pytest.approx(12_000)
    assert "taken as equal" in cheaper_sentence(found, "large", DAY)


def test_a_machine_that_cannot_answer_so_many_is_never_cheaper(params: EvaluateParams) -> None:
    found = cheaper_from(used((1, 1), seconds=10.0), DAY, LargerModelUsage("large", (0.002, 0.002)), params)
    assert found is not None and not found.possible
    assert cheaper_sentence(found, "large", DAY).startswith(
        "The challenger on one machine for $24.00 a day is at no rate cheaper than large for a right answer: "
        "that takes 12,000 requests a day; it answers at most 8,640 a day."
    )


@pytest.mark.parametrize(("dollars", "scores"), [((0.0, 0.0), ()), ((0.1, 0.1), (0.0, 0.0))])
def test_what_is_free_or_never_right_has_no_balance(
    params: EvaluateParams, dollars: tuple[float, ...], scores: tuple[float, ...]
) -> None:
    assert cheaper_from(used((1, 1)), DAY, LargerModelUsage("large", dollars, scores), params) is None


def test_a_less_accurate_challenger_is_called_so(params: EvaluateParams) -> None:
    larger = LargerModelUsage("large", (0.002,) * 200, (1.0,) * 200)
    found = cheaper_from(used((1.0, 0.0) * 100), DAY, larger, params)
    assert isinstance(found, CheaperFrom) and found.worse
    assert "It is shown to be less accurate: −50.0 points" in cheaper_sentence(found, "large", DAY)


def test_the_sentence_says_whence_the_utilisation_is() -> None:
    assert "works 5.0% of the paid time: 12.5 days of the prediction log have 24,000 requests a day" in (
        machine_sentence(DAY)
    )
    assert "(economics.utilisation)" in machine_sentence(MachineUse(0.3, 1.0, "setting"))
    assert "taken as busy all the time" in machine_sentence(fully_used(1.0))

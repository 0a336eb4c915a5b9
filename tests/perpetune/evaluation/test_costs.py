from __future__ import annotations

import json

import pytest

from perpetune.evaluation.costs import (
    RefreshCost,
    RefreshEconomics,
    economics,
    from_document,
    refresh_economics,
    sentences,
    times_as_much,
    to_document,
)
from perpetune.evaluation.economics.machine import MachineUse
from perpetune.evaluation.economics.usage import Usage
from perpetune.evaluation.economics.wording import dollars, requests_text
from perpetune.generation.answer import Answer
from perpetune.params import EconomicsParams, EvaluateParams, LargerModel


def answer(seconds: float, prompt: int = 60, completion: int = 1) -> Answer:
    return Answer("x", None, None, prompt, completion, "stop", seconds)


def test_costs_by_hand() -> None:
    found = economics([answer(0.1), answer(0.2), answer(0.3, prompt=90)], dollars_per_hour=3.6)
    assert found.dollars_per_1000 == pytest.approx(0.2)  # 200 busy seconds at a tenth of a cent
    assert (found.seconds_mean, found.seconds_p50) == pytest.approx((0.2, 0.2))
    assert found.seconds_p95 == pytest.approx(0.29)
    assert (found.requests, found.prompt_tokens, found.completion_tokens) == (3, 70, 1)


def test_costs_are_compared_in_multiples() -> None:
    own, other = economics([answer(0.1)], 1.0), economics([answer(0.6)], 1.0)
    assert times_as_much(other, own) == pytest.approx(6)
    assert times_as_much(other, economics([answer(0.0)], 1.0)) is None


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "$0"), (1234.5, "$1,234.50"), (0.5, "$0.500"), (0.00123456, "$0.00123"), (-0.5, "−$0.500")]
)
def test_dollars_read_as_people_write_them(amount: float, text: str) -> None:
    assert dollars(amount) == text


LARGER = LargerModel(name="large", dollars_per_million_prompt_tokens=2.0, dollars_per_million_completion_tokens=10.0)
NO_PRICES = EconomicsParams(larger_model=None, requests_per_month=None, dollars_per_label=0.0)
EIGHT = 8
HALF_AN_HOUR = RefreshCost(device_hours=0.5, labels=0)


def constant_usage(seconds: float, prompt: int = 60, completion: int = 1) -> Usage:
    return Usage((seconds,) * EIGHT, (prompt,) * EIGHT, (completion,) * EIGHT)


def worth(
    params: EvaluateParams,
    usage: dict[str, Usage] | None = None,
    spent: RefreshCost = HALF_AN_HOUR,
    prices: EconomicsParams = NO_PRICES,
    monthly: int | None = None,
) -> RefreshEconomics:
    usual = {
        "base": constant_usage(0.2),
        "few-shot": constant_usage(0.3, prompt=400),
        "challenger": constant_usage(0.1),
    }
    return refresh_economics(usage or usual, spent, prices, params, monthly)


def test_break_even_by_hand(params: EvaluateParams) -> None:
    found = worth(params, spent=RefreshCost(0.5, 10), prices=NO_PRICES.model_copy(update={"dollars_per_label": 0.02}))
    prompted = found.rivals[0]

    assert found.before_system == "few-shot"
    assert (found.before.value, found.after.value) == pytest.approx((0.3, 0.1))
    assert found.refresh_dollars == pytest.approx(0.5 * 3.6 + 10 * 0.02)
    assert prompted.saved_per_1000.value == pytest.approx(0.2)
    assert prompted.requests == pytest.approx(10_000)
    assert (prompted.low, prompted.high) == pytest.approx((10_000, 10_000)), "all rows cost alike"


def test_the_larger_model_is_priced_at_the_tokens_of_the_prompt_with_examples(params: EvaluateParams) -> None:
    found = worth(params, prices=NO_PRICES.model_copy(update={"larger_model": LARGER}))
    larger = found.rivals[1]

    assert larger.name == "large with the same examples"
    assert larger.dollars_per_1000.value == pytest.approx(1000 * (400 * 2 + 1 * 10) / 1e6)
    assert larger.requests == pytest.approx(1.8 / (0.81 - 0.1) * 1000)


def test_the_champion_is_what_would_serve_and_the_prompted_base_still_the_rival(params: EvaluateParams) -> None:
    usage = {
        "base": constant_usage(0.2),
        "few-shot": constant_usage(0.3),
        "champion": constant_usage(0.1),
        "challenger": constant_usage(0.12),
    }
    found = worth(params, usage)

    assert found.before_system == "champion"
    assert found.before.value == pytest.approx(0.1)
    assert found.rivals[0].name == "the base model with examples"


def test_without_examples_the_bare_base_is_the_rival(params: EvaluateParams) -> None:
    found = worth(params, {"base": constant_usage(0.2), "challenger": constant_usage(0.1)})

    assert (found.before_system, found.rivals[0].name) == ("base", "the base model")


def test_what_saves_nothing_never_pays_for_itself(params: EvaluateParams) -> None:
    found = worth(
        params, {"base": constant_usage(0.1), "few-shot": constant_usage(0.1), "challenger": constant_usage(0.2)}
    )

    assert (found.rivals[0].requests, found.rivals[0].low, found.rivals[0].high) == (None, None, None)
    assert "never pays for itself" in sentences(found)[2]
    assert not [name for name in found.flat_metrics() if "break_even" in name]


def test_a_free_machine_leaves_nothing_to_pay_back(params: EvaluateParams) -> None:
    found = worth(params.model_copy(update={"dollars_per_hour": 0.0}))

    assert (found.after.value, found.refresh_dollars, found.rivals[0].requests) == (0, 0, 0)
    assert "no cost to pay back" in sentences(found)[2]


def test_labels_cost_even_if_the_machine_is_free(params: EvaluateParams) -> None:
    prices = EconomicsParams(larger_model=LARGER, requests_per_month=None, dollars_per_label=0.1)
    found = worth(params.model_copy(update={"dollars_per_hour": 0.0}), spent=RefreshCost(0.5, 81), prices=prices)
    prompted, larger = found.rivals

    assert prompted.requests is None
    assert larger.requests == pytest.approx(8.1 / 0.81 * 1000)


def test_rows_that_differ_give_intervals_that_hold_the_value_and_may_reach_never(params: EvaluateParams) -> None:
    own = Usage((0.1,) * EIGHT, (60,) * EIGHT, (1,) * EIGHT)
    other = Usage((0.05, 0.3) * 4, (60,) * EIGHT, (1,) * EIGHT)
    found = worth(params, {"few-shot": other, "base": other, "challenger": own})
    rival = found.rivals[0]

    assert rival.requests is not None and rival.low is not None
    assert rival.saved_per_1000.low < rival.saved_per_1000.value < rival.saved_per_1000.high
    assert rival.low < rival.requests == pytest.approx(1.8 / 0.075 * 1000)
    assert rival.high is None or rival.high > rival.requests
    assert rival.saved_per_1000.n == EIGHT


def test_the_order_of_rows_does_not_matter(params: EvaluateParams) -> None:
    seconds = (0.05, 0.3, 0.2, 0.1, 0.4, 0.25, 0.15, 0.35)
    one = worth(params, {"base": Usage(seconds, (1,) * EIGHT, (1,) * EIGHT), "challenger": constant_usage(0.1)})
    other = worth(params, {"base": Usage(seconds[::-1], (1,) * EIGHT, (1,) * EIGHT), "challenger": constant_usage(0.1)})

    assert one == other


def test_free_text_pays_for_each_token_it_writes(params: EvaluateParams) -> None:
    prices = NO_PRICES.model_copy(update={"larger_model": LARGER})
    short, long = (
        worth(
            params, {"base": constant_usage(0.1, completion=count), "challenger": constant_usage(0.1)}, prices=prices
        ).rivals[1]
        for count in (10, 110)
    )

    assert long.dollars_per_1000.value - short.dollars_per_1000.value == pytest.approx(1.0)


def test_sentences_say_cost_refresh_and_days(params: EvaluateParams) -> None:
    told = sentences(worth(params, spent=RefreshCost(0.5, 1), monthly=3_000))

    assert told == [
        "1,000 requests cost $0.100 with the challenger and $0.300 with the base model with examples, "
        "which serves otherwise (n = 8).",
        "The refresh cost $1.80: 0.5 device hours at $3.60 and 1 label at $0.",
        "Against the base model with examples ($0.300 per 1,000 requests) it pays for itself after 9,000 requests "
        "(n = 8): about 90 days at 3,000 requests a month.",
        "The machine costs $3.60 an hour and is taken as busy all the time, because the prediction log holds less than a "
        "day of requests; economics.utilisation says otherwise.",
    ]


def test_a_faster_answer_on_a_machine_that_idles_saves_nothing(params: EvaluateParams) -> None:
    usage = {"base": constant_usage(0.3), "challenger": constant_usage(0.1)}
    idle = MachineUse(0.05, params.dollars_per_hour, "measured", requests_per_day=1_000, days=7)
    prices = NO_PRICES.model_copy(update={"larger_model": LARGER})
    found = refresh_economics(usage, HALF_AN_HOUR, prices, params, None, idle, [1.0] * EIGHT)
    prompted, larger = found.rivals

    assert found.after.value == found.before.value == pytest.approx(86.4)  # $86.40 a day for 1,000 requests
    assert (prompted.saved_per_1000.value, prompted.requests) == (0, None)
    assert "because it saves nothing on a machine that is paid while it waits" in sentences(found)[2]
    assert larger.saved_per_1000.value == pytest.approx(0.13 - 86.4)
    assert found.flat_metrics()["economics/utilisation"] == 0.05
    assert found.flat_metrics()["economics/larger_model/score"] == 1.0
    assert from_document(json.loads(json.dumps(to_document(found)))) == found


def test_a_record_of_before_is_read_as_it_was(params: EvaluateParams) -> None:
    found = worth(params)
    before = {name: value for name, value in to_document(found).items() if name not in ("machine", "systems", "rows")}
    before.pop("cheaper_from")
    assert sentences(from_document(before)) == sentences(found)[:-1]


def test_one_batch_has_no_interval(params: EvaluateParams) -> None:
    together = Usage((0.05, 0.15) * 4, (60,) * EIGHT, (1,) * EIGHT, batches=("one",) * EIGHT)
    told = sentences(worth(params, {"base": constant_usage(0.3), "challenger": together}))
    assert "(n = 8 rows in 1 batch, so without an interval)" in told[0]
    assert "9,000 requests (n = 8 rows in 1 batch" in told[2]


def test_it_is_the_same_after_json(params: EvaluateParams) -> None:
    found = worth(params, prices=NO_PRICES.model_copy(update={"larger_model": LARGER}), monthly=10)

    assert from_document(json.loads(json.dumps(to_document(found)))) == found


@pytest.mark.parametrize(("requests", "text"), [(None, "never"), (0.2, "1"), (999, "999"), (123_456.7, "123,000")])
def test_requests_read_as_people_write_them(requests: float | None, text: str) -> None:
    assert requests_text(requests) == text

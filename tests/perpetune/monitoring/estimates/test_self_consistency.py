"""Self-consistency: agreement with samples, which a gateway of the test draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perpetune.evaluation.scores.text_metrics import token_f1
from perpetune.monitoring.estimates.measured import Answered, lot
from perpetune.monitoring.estimates.self_consistency import agreement, agreements
from perpetune.records import Message
from perpetune.runtime.gateway_client import GatewayClient

Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


def test_agreement_is_the_mean_score_of_the_samples() -> None:
    assert agreement("red house", ["red house", "red car", "no"], token_f1) == pytest.approx((1 + 1 / 2) / 3)
    assert agreement("red house", [], token_f1) is None


@pytest.mark.integration
def test_samples_are_drawn_in_batches_and_a_failed_one_has_no_value(json_server: Callable[[Reply], str]) -> None:
    bodies: list[dict[str, Any]] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        bodies.append(body)
        if len(bodies) == 3:
            return 503, {"error": {"message": "busy"}}
        texts = [turns[-1]["content"] for turns in body["conversations"]]
        drawn = [{"error": "RuntimeError"} if text == "3" else {"outputs": [text, "other"]} for text in texts]
        return 200, {"version": "7", "serving": "7", "answers": drawn}

    asked = [Answered(str(n), (Message(role="user", content=str(n)),), str(n)) for n in range(20)]
    gateway = GatewayClient(json_server(reply), "reviews")
    found = agreements(asked, gateway, "7", 2, 0.7, lambda expected, answer: float(expected == answer))
    assert found.values == (*[0.5] * 3, None, *[0.5] * 12)
    assert found.fault == "the gateway refused (503): busy"
    assert [(body["version"], body["n"], body["temperature"]) for body in bodies] == [("7", 2, 0.7)] * 3
    away = agreements(asked, GatewayClient("http://127.0.0.1:9", "reviews"), "7", 2, 0.7, token_f1)
    assert (away.values, away.fault) == ((), "no gateway runs")


def test_a_lot_of_about_the_same_answers_is_about_the_same() -> None:
    asked = [Answered(f"r{number}", (), "") for number in range(1000)]
    first, later = lot(asked[:900], 100), lot(asked[100:], 100)
    assert len({each.id for each in first} & {each.id for each in later}) >= 75
    assert lot(asked[:900][::-1], 100) == first

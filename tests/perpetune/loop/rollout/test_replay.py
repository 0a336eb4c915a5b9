"""The previous version is asked the same inputs, and decides by independent ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from predictions import answered

from perpetune.evaluation.scores.text_metrics import same_label
from perpetune.loop.rollout.replay import replay
from perpetune.policy.rollout import is_better
from perpetune.records import Message, Prediction


@dataclass
class Asked:
    """A gateway whose previous version answers "good"."""

    batches: int = 0

    def answers(self, version: str, conversations: Sequence[tuple[Message, ...]]) -> Any:
        self.batches += 1

        @dataclass
        class Reply:
            outputs: list[str | None]

        return Reply(["good"] * len(conversations))


def rows(wrong: int, right: int, **more: object) -> list[Prediction]:
    """Labelled "good", of which so many were answered "bad" by the champion."""
    return [
        answered(f"r{number}", f"well {number}?", "bad" if number < wrong else "good", task="t", time=NOW).model_copy(
            update={"label": "good", **(more if number < wrong else {})}
        )
        for number in range(wrong + right)
    ]


NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(("more", "better"), [({}, True), ({"group": "one user"}, False), ({"input": "Well? "}, False)])
def test_a_burst_of_one_user_or_input_is_one_observation(more: dict[str, object], better: bool) -> None:
    found = replay(Asked(), "1", rows(12, 40, **more), same_label)  # type: ignore[arg-type]
    assert (found.previous, found.rows) == (1.0, 52) and found.champion == pytest.approx(40 / 52)
    assert is_better(found) == better, found


def test_a_label_drawn_for_doubt_counts_with_its_weight() -> None:
    even = replay(Asked(), "1", rows(12, 40), same_label)  # type: ignore[arg-type]
    light = replay(Asked(), "1", rows(12, 40, weight=0.1), same_label)  # type: ignore[arg-type]
    assert 0 < light.difference < even.difference / 5

"""The previous version is asked the same inputs, and decides by independent ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from predictions import answered

from perpetune.evaluation.scores.mistake_costs import MistakeCosts
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


def test_what_mistakes_cost_decides_which_version_is_better() -> None:
    """The previous version answers "good" to all: it finds 12 that are dear and gets 30 wrong that are not."""
    dear, cheap = rows(12, 0), rows(0, 30)
    labelled = [*dear, *(row.model_copy(update={"id": f"c{row.id}", "label": "bad", "output": "bad"}) for row in cheap)]
    by_cost = MistakeCosts({"good": {"*": 50.0}}).score
    found = [replay(Asked(), "1", labelled, score) for score in (same_label, by_cost)]  # type: ignore[arg-type]
    assert [is_better(each) for each in found] == [False, True]
    assert found[1].difference == pytest.approx((12 - 30 / 50) / 42)

from __future__ import annotations

from perpetune.loop.look import promised_scores
from perpetune.params import ReferenceParams
from perpetune.records import Recorded

PARAMS = ReferenceParams(rows=100, min_recent=3)


def recorded(holdout: str, *scores: float) -> list[Recorded]:
    return [
        Recorded(id=f"{holdout}-{number}", holdout=holdout, output="good", confidence=None, score=score)
        for number, score in enumerate(scores)
    ]


def test_newer_traffic_is_the_measure_where_there_is_enough_of_it() -> None:
    frozen = recorded("frozen", 1, 1, 1, 1)
    assert promised_scores([*frozen, *recorded("recent", 0, 1, 0)], PARAMS) == [0, 1, 0]
    assert promised_scores([*frozen, *recorded("recent", 0, 1)], PARAMS) == [1, 1, 1, 1, 0, 1]
    assert promised_scores(frozen, PARAMS) == [1, 1, 1, 1]
    assert promised_scores([], PARAMS) == []

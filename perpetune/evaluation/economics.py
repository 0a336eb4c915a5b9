"""What an answer costs: seconds, tokens and dollars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perpetune.answer import Answer

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Economics:
    """Busy seconds and tokens per request, and dollars per 1,000 requests on a machine kept busy."""

    requests: int
    seconds_mean: float
    seconds_p50: float
    seconds_p95: float
    prompt_tokens: float
    completion_tokens: float
    dollars_per_1000: float

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.completion_tokens


def economics(answers: Sequence[Answer], dollars_per_hour: float) -> Economics:
    """The cost of these answers, at the price of the machine that gave them."""
    seconds = np.array([answer.seconds for answer in answers])
    mean = float(seconds.mean())
    return Economics(
        requests=len(answers),
        seconds_mean=mean,
        seconds_p50=float(np.quantile(seconds, 0.5)),
        seconds_p95=float(np.quantile(seconds, 0.95)),
        prompt_tokens=float(np.mean([answer.prompt_tokens for answer in answers])),
        completion_tokens=float(np.mean([answer.completion_tokens for answer in answers])),
        dollars_per_1000=dollars_per_hour * mean / SECONDS_PER_HOUR * 1000,
    )


def times_as_much(other: Economics, own: Economics) -> float | None:
    """The cost of `other` in costs of `own`: 6 where it costs six times as much; None where `own` is free."""
    return other.dollars_per_1000 / own.dollars_per_1000 if own.dollars_per_1000 > 0 else None

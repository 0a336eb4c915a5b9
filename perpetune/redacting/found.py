"""A place in a text that is to be redacted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """`text[start:end]` is of the kind `name`. The surest of overlapping ones, by `score` (0 to 1), gives the name."""

    start: int
    end: int
    score: float
    name: str

"""What a system used to answer held-out rows, and how well it answered them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from perpetune.statistics.estimate import Floats


@dataclass(frozen=True)
class Usage:
    """Seconds, tokens, scores and batches of one system for each held-out row, in the same order for all systems.

    `scores` are from 0 to 1; () if they are not known. Rows with the same entry of `batches` were answered together, and
    their seconds are one observation; None was answered alone, and () says that all were.
    """

    seconds: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    scores: tuple[float, ...] = ()
    batches: tuple[str | None, ...] = ()

    @property
    def clusters(self) -> list[Hashable]:
        """The batch of each row, or the row itself if it was answered alone."""
        batches = self.batches or (None,) * len(self.seconds)
        return [row if batch is None else batch for row, batch in enumerate(batches)]

    @property
    def of_seconds(self) -> Floats:
        return np.asarray(self.seconds, dtype=np.float64)

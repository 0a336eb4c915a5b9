"""How good a row's text is, whatever its label: length and repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perpetune.records import Example

OUTLIER = 3.5
"""Modified z-scores beyond this are outliers (Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers")."""
MIN_WORDS = 20
REPEATED = 0.3
"""Texts of which so many word triples repeat are poor (Rae et al. 2021, arXiv:2112.11446, table A1, for two to four words)."""
POOR = 0.3


def text_quality(rows: Sequence[Example]) -> NDArray[np.float64]:
    """1 for a usual text, less for one of unusual length or that repeats itself, (rows,)."""
    texts = [f"{row.input}\n{row.output}" for row in rows]
    unusual = np.abs(_z_scores([math.log1p(len(text)) for text in texts])) > OUTLIER
    repeating = np.array([repeated_ratio(text) > REPEATED for text in texts], dtype=bool)
    return np.where(unusual, POOR, 1.0) * np.where(repeating, POOR, 1.0)


def _z_scores(values: Sequence[float]) -> NDArray[np.float64]:
    """Distances from the median in standard deviations, estimated by the median absolute deviation."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return found
    distances = found - np.median(found)
    spread = np.median(np.abs(distances)) / 0.6745
    return np.asarray(distances / spread if spread else np.zeros_like(distances))


def repeated_ratio(text: str) -> float:
    """The ratio of word triples that occurred before in the text; 0 for short texts."""
    words = text.casefold().split()
    if len(words) < MIN_WORDS:
        return 0.0
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples)

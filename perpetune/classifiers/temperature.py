"""Fitting the temperature of temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from perpetune.generation.answer import Answer

MIN_ROWS = 20
_RANGE = (0.05, 20.0)
MIN_PROBABILITY = 1e-12  # lower ones are clipped before the logarithm


def fit_temperature(answers: Sequence[Answer], expected: Sequence[str]) -> float:
    """The temperature that maximises the likelihood of the expected labels, for `scale_temperature`.

    Fit it on rows that are neither trained on nor reported (Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017). It is 1.0 if fewer than 20 rows have a probability for their expected label.
    """
    rows = [
        (answer.probabilities, label)
        for answer, label in zip(answers, expected, strict=True)
        if answer.probabilities is not None and label in answer.probabilities
    ]
    if len(rows) < MIN_ROWS:
        return 1.0
    logs = np.log(np.maximum([list(found.values()) for found, _ in rows], MIN_PROBABILITY))  # (rows, labels)
    positions = np.array([list(found).index(label) for found, label in rows])

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(rows)), positions]))

    found = minimize_scalar(loss, bounds=tuple(np.log(_RANGE)), method="bounded")
    return float(np.exp(found.x))

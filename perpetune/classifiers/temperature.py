"""The temperature that makes a model's confidence in its labels mean what it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from perpetune.generation.answer import Answer

MIN_ROWS = 20
_RANGE = (0.05, 20.0)
MIN_PROBABILITY = 1e-12  # a probability, whose logarithm is taken


def fit_temperature(answers: Sequence[Answer], wanted: Sequence[str]) -> float:
    """The temperature under which the labels that were wanted are likeliest, for `perpetune.classifiers.temperature_scaling.calibrated`.

    Fit it on rows that are neither trained on nor reported (Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017). 1.0 where fewer than 20 rows have probabilities for the label wanted.
    """
    rows = [
        (answer.probabilities, label)
        for answer, label in zip(answers, wanted, strict=True)
        if answer.probabilities is not None and label in answer.probabilities
    ]
    if len(rows) < MIN_ROWS:
        return 1.0
    logs = np.log(np.maximum([list(shares.values()) for shares, _ in rows], MIN_PROBABILITY))  # (rows, labels)
    positions = np.array([list(shares).index(label) for shares, label in rows])

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(rows)), positions]))

    found = minimize_scalar(loss, bounds=tuple(np.log(_RANGE)), method="bounded")
    return float(np.exp(found.x))

"""A log-linear pool of a tuned model and a linear model.

The pooled probability of a label is proportional to the product of the two probabilities, each raised to a power
(Genest and Zidek 1986, Combining Probability Distributions, Statistical Science 1(1)). The powers are fitted on rows
that neither model was trained on, which calibrates the pool too. If the linear model's power is 0, this is temperature
scaling (Guo et al. 2017, On Calibration of Modern Neural Networks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from scipy.optimize import minimize
from sklearn.pipeline import Pipeline

from perpetune.classifiers.linear import linear_answers, load_linear_model, save_linear_model
from perpetune.classifiers.temperature import MIN_PROBABILITY, MIN_ROWS
from perpetune.generation.answer import Answer
from perpetune.model.release import POOL

POWERS = "powers.json"
_TUNED_BOUNDS, _LINEAR_BOUNDS = (0.05, 20.0), (0.0, 20.0)


class Powers(BaseModel):
    """The exponents of the two models' probabilities."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    # Versions trained by perpetune 0.1 say "own".
    tuned: float = Field(1.0, validation_alias=AliasChoices("tuned", "own"))
    linear: float = 0.0


@dataclass(frozen=True)
class Pool:
    """The powers, and the linear model; None if its power is 0."""

    powers: Powers
    model: Pipeline | None

    def combine(self, answers: Sequence[Answer], texts: Sequence[str]) -> list[Answer]:
        """The tuned model's answers to these user texts with pooled probabilities; free text is not changed."""
        others = linear_answers(self.model, texts) if self.model is not None else [None] * len(texts)
        return [self._combine_one(answer, other) for answer, other in zip(answers, others, strict=True)]

    def _combine_one(self, answer: Answer, linear: Answer | None) -> Answer:
        if answer.probabilities is None:
            return answer
        labels = list(answer.probabilities)
        logs = _log_probabilities(answer.probabilities, labels) * self.powers.tuned
        if linear is not None and linear.probabilities is not None:
            logs = logs + _log_probabilities(linear.probabilities, labels) * self.powers.linear
        weights = np.exp(logs - logs.max())
        probabilities = dict(zip(labels, (weights / weights.sum()).tolist(), strict=True))
        best = max(probabilities, key=probabilities.__getitem__)
        seconds = answer.seconds + (linear.seconds if linear else 0.0)
        return replace(answer, text=best, confidence=probabilities[best], probabilities=probabilities, seconds=seconds)


def fit_powers(tuned: Sequence[Answer], linear: Sequence[Answer], expected: Sequence[str]) -> Powers:
    """The powers that maximise the likelihood of the expected labels.

    The linear model is used only if it lowers the mean loss by more than one standard error (Breiman et al. 1984,
    Classification and Regression Trees, 3.4.3), because it adds latency to every request. With fewer than 20 rows
    whose label the tuned model knows, the probabilities are not changed.
    """
    rows = [
        (answer.probabilities, other.probabilities or {}, label)
        for answer, other, label in zip(tuned, linear, expected, strict=True)
        if answer.probabilities is not None and label in answer.probabilities
    ]
    if len(rows) < MIN_ROWS:
        return Powers()
    labels = list(rows[0][0])
    logs = np.array([[_log_probabilities(each, labels) for each in pair] for *pair, _ in rows])  # (rows, 2, labels)
    positions = np.array([labels.index(label) for *_, label in rows])
    tuned_only = _fitted(logs, positions, (_TUNED_BOUNDS, (0.0, 0.0)))
    both = _fitted(logs, positions, (_TUNED_BOUNDS, _LINEAR_BOUNDS))
    gains = _losses(logs, positions, tuned_only) - _losses(logs, positions, both)
    powers = both if gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)) else tuned_only
    return Powers(tuned=float(powers[0]), linear=float(powers[1]))


def _fitted(logs: np.ndarray, positions: np.ndarray, bounds: Sequence[tuple[float, float]]) -> np.ndarray:
    start = np.array([1.0, bounds[1][1] and 1.0])
    found = minimize(lambda powers: _losses(logs, positions, powers).mean(), start, bounds=bounds, method="L-BFGS-B")
    return np.asarray(found.x)


def _losses(logs: np.ndarray, positions: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """The negative log-likelihood of each row's label, (rows,)."""
    pooled = np.einsum("rml,m->rl", logs, powers)
    found: np.ndarray = np.logaddexp.reduce(pooled, axis=1) - pooled[np.arange(len(positions)), positions]
    return found


def _log_probabilities(probabilities: Mapping[str, float], labels: Sequence[str]) -> np.ndarray:
    return np.log(np.maximum([probabilities.get(label, 0.0) for label in labels], MIN_PROBABILITY))


def save_pool(adapter: Path, pool: Pool) -> None:
    """Write the pool into the adapter's folder."""
    folder = adapter / POOL
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POWERS).write_text(pool.powers.model_dump_json(), encoding="utf-8")
    if pool.model is not None:
        save_linear_model(folder, pool.model)


def load_pool(adapter: Path, assets: Path) -> Pool:
    """Read what `save_pool` wrote. Raises PerpetuneError if the linear model is unreadable or its encoder is missing."""
    powers = read_powers(adapter) or Powers()
    return Pool(powers, load_linear_model(adapter / POOL, assets) if powers.linear else None)


def read_powers(adapter: Path) -> Powers | None:
    """The powers in the adapter's folder; None if it has no pool."""
    path = adapter / POOL / POWERS
    return Powers.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None

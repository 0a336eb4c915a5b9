"""A tuned model and a linear model answering together: their probabilities of each label, pooled.

The pooled probability of a label is proportional to the product of both, each raised to a power: a log-linear pool
(Genest and Zidek 1986, Combining Probability Distributions, Statistical Science 1(1)). The powers are fitted on rows
that neither model has learned from, which calibrates the pool too: if the linear model's power is 0, this is
temperature scaling (Guo et al. 2017, On Calibration of Modern Neural Networks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize
from sklearn.pipeline import Pipeline

from perpetune.classifiers.linear import linear_answers, load_linear_model, save_linear_model
from perpetune.classifiers.temperature import MIN_PROBABILITY, MIN_ROWS
from perpetune.generation.answer import Answer
from perpetune.model.release import POOL

POWERS = "powers.json"
_OWN, _LINEAR = (0.05, 20.0), (0.0, 20.0)  # between which the powers are sought


class Powers(BaseModel):
    """To which the probabilities of the tuned model and of the linear model are raised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: float = 1.0
    linear: float = 0.0


@dataclass(frozen=True)
class Pool:
    """The linear model beside a tuned one, None if its power is 0."""

    powers: Powers
    model: Pipeline | None

    def pooled(self, answers: Sequence[Answer], texts: Sequence[str]) -> list[Answer]:
        """The answers to these texts of users', with the pooled probabilities; free text stays as it is."""
        beside = linear_answers(self.model, texts) if self.model is not None else [None] * len(texts)
        return [self._with(answer, other) for answer, other in zip(answers, beside, strict=True)]

    def _with(self, answer: Answer, beside: Answer | None) -> Answer:
        if answer.probabilities is None:
            return answer
        logs = _logs(answer.probabilities, list(answer.probabilities)) * self.powers.own
        if beside is not None and beside.probabilities is not None:
            logs = logs + _logs(beside.probabilities, list(answer.probabilities)) * self.powers.linear
        shares = np.exp(logs - logs.max())
        probabilities = dict(zip(answer.probabilities, (shares / shares.sum()).tolist(), strict=True))
        best = max(probabilities, key=probabilities.__getitem__)
        seconds = answer.seconds + (beside.seconds if beside else 0.0)
        return replace(answer, text=best, confidence=probabilities[best], probabilities=probabilities, seconds=seconds)


def fit_powers(own: Sequence[Answer], linear: Sequence[Answer], wanted: Sequence[str]) -> Powers:
    """The powers under which the labels that were wanted are likeliest.

    The linear model takes part only if it lowers the mean loss by more than a standard error (Breiman et al. 1984,
    Classification and Regression Trees, 3.4.3), since it costs a little time at every request. With fewer than 20 rows
    whose label the tuned model knows, the probabilities stay as they are.
    """
    rows = [
        (answer.probabilities, beside.probabilities or {}, label)
        for answer, beside, label in zip(own, linear, wanted, strict=True)
        if answer.probabilities is not None and label in answer.probabilities
    ]
    if len(rows) < MIN_ROWS:
        return Powers()
    labels = list(rows[0][0])
    logs = np.array([[_logs(shares, labels) for shares in pair] for *pair, _ in rows])  # (rows, 2, labels)
    positions = np.array([labels.index(label) for *_, label in rows])
    alone, both = _fitted(logs, positions, (_OWN, (0.0, 0.0))), _fitted(logs, positions, (_OWN, _LINEAR))
    gains = _losses(logs, positions, alone) - _losses(logs, positions, both)
    taken = both if gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)) else alone
    return Powers(own=float(taken[0]), linear=float(taken[1]))


def _fitted(logs: np.ndarray, positions: np.ndarray, bounds: Sequence[tuple[float, float]]) -> np.ndarray:
    start = np.array([1.0, bounds[1][1] and 1.0])
    found = minimize(lambda powers: _losses(logs, positions, powers).mean(), start, bounds=bounds, method="L-BFGS-B")
    return np.asarray(found.x)


def _losses(logs: np.ndarray, positions: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Minus the log-probability of each row's label, (rows,)."""
    pooled = np.einsum("rml,m->rl", logs, powers)
    found: np.ndarray = np.logaddexp.reduce(pooled, axis=1) - pooled[np.arange(len(positions)), positions]
    return found


def _logs(shares: Mapping[str, float], labels: Sequence[str]) -> np.ndarray:
    return np.log(np.maximum([shares.get(label, 0.0) for label in labels], MIN_PROBABILITY))


def save_pool(adapter: Path, pool: Pool) -> None:
    """Write it into the folder of what was trained."""
    folder = adapter / POOL
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POWERS).write_text(pool.powers.model_dump_json(), encoding="utf-8")
    if pool.model is not None:
        save_linear_model(folder, pool.model)


def load_pool(adapter: Path, assets: Path) -> Pool:
    """What `save_pool` wrote. Raises PerpetuneError if its linear model cannot be read, or its encoder is missing."""
    powers = read_powers(adapter) or Powers()
    return Pool(powers, load_linear_model(adapter / POOL, assets) if powers.linear else None)


def read_powers(adapter: Path) -> Powers | None:
    """None for what is in no pool."""
    path = adapter / POOL / POWERS
    return Powers.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None

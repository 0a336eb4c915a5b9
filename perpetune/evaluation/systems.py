"""The systems of an evaluation, their metrics, and the display names of both."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

Kind = Literal["classification", "generation"]

# In the order of tables and plots. `few-shot` is the base model prompted with examples, `recorded` has the recorded
# answers of a larger model, `hosted` those of the hosted model that is to be replaced.
TITLES = {
    "majority": "Majority answer",
    "linear": "TF-IDF + logistic regression",
    "embeddings": "Embeddings + logistic regression",
    "base": "Base model",
    "few-shot": "Base model with examples",
    "recorded": "Recorded model",
    "hosted": "Hosted model",
    "champion": "Champion",
    "challenger": "Challenger",
}

# Compared with, and never served: their answers are in a file, and cost this machine nothing.
RECORDED = ("recorded", "hosted")

# In sentences.
LINEAR = {
    "linear": "TF-IDF with logistic regression",
    "embeddings": "logistic regression on sentence embeddings",
}

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "slot_f1": "Slot F1",
    "object_match": "Same object",
    "valid_rate": "Valid",
    "token_f1": "Token F1",
    "exact_match": "Exact match",
    "rouge_l": "ROUGE-L",
    "cost score": "Cost score",
}


def title(system: str) -> str:
    """The name of a system in tables and plots."""
    return TITLES.get(system, system)


def phrase(system: str) -> str:
    """The name of a system in sentences."""
    if system in LINEAR:
        return LINEAR[system]
    return f"the {title(system).lower()}" if system in TITLES else system


def in_order(systems: Iterable[str]) -> list[str]:
    """Known systems in the order of TITLES, then others by name."""
    known = list(TITLES)
    return sorted(systems, key=lambda system: (known.index(system) if system in TITLES else len(known), system))


def subject_of(systems: Collection[str]) -> str:
    """The system that the others are compared with: the challenger, or else the next best."""
    nearest = ("challenger", "champion", "few-shot", "base", *in_order(systems))
    return next(system for system in nearest if system in systems)

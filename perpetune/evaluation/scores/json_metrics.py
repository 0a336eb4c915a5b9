"""Metrics of a JSON answer against the expected one, in [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np

from perpetune.evaluation.scores.text_metrics import tidy
from perpetune.output_schema import InvalidOutput, OutputSchema, parsed


def is_valid(answer: str, schema: OutputSchema) -> float:
    """1 if the answer is JSON that satisfies the schema, else 0."""
    try:
        schema.parsed(answer)
    except InvalidOutput:
        return 0.0
    return 1.0


def object_match(expected: str, answer: str, schema: OutputSchema) -> float:
    """1 if both are equal as in `slot_f1`, else 0."""
    return float(slot_f1(expected, answer, schema) == 1)


def slot_f1(expected: str, answer: str, schema: OutputSchema) -> float:
    """Slot F1, as in CoNLL: a slot counts if its type and its whole value are correct (Tjong Kim Sang and De Meulder
    2003, aclanthology.org/W03-0419).

    A slot is a path into the object with its value. Strings are compared case-sensitively, up to whitespace and Unicode
    form, numbers by value (1 and 1.0). The order of keys and list items does not matter: items are paired to share the
    most slots. An empty object or list is one slot. An answer that does not satisfy the schema scores 0.
    """
    try:
        answered_slots, expected_slots = schema.parsed(answer), parsed(expected)
    except InvalidOutput:
        return 0.0
    return 2 * _shared(expected_slots, answered_slots) / (_slots(expected_slots) + _slots(answered_slots))


def _slots(value: Any) -> int:
    """The number of leaves of a value."""
    if isinstance(value, dict | list) and value:
        return sum(map(_slots, value.values() if isinstance(value, dict) else value))
    return 1


def _shared(one: Any, other: Any) -> int:
    """The number of leaves that two values share."""
    if isinstance(one, dict) and isinstance(other, dict) and one and other:
        return sum(_shared(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list) and one and other:
        from scipy.optimize import linear_sum_assignment  # late: few tasks answer with lists

        shared = np.array([[_shared(mine, theirs) for theirs in other] for mine in one])
        return int(shared[linear_sum_assignment(shared, maximize=True)].sum())
    return int(_leaf(one) == _leaf(other))


def _leaf(value: Any) -> tuple[str, Any]:
    """A leaf normalised for comparison, with its type: JSON's true is not 1."""
    if isinstance(value, str):
        return "text", tidy(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return type(value).__name__, value

"""How close a JSON answer is to the wanted one, row by row, in [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from perpetune.evaluation.scores.text_metrics import tidy
from perpetune.output_schema import InvalidOutput, OutputSchema, parsed


def is_valid(answer: str, schema: OutputSchema) -> float:
    """1 where the answer is JSON that satisfies the schema, else 0."""
    try:
        schema.parsed(answer)
    except InvalidOutput:
        return 0.0
    return 1.0


def object_match(wanted: str, answer: str, schema: OutputSchema) -> float:
    """1 where both are the same value, else 0; equal is what `slot_f1` counts as equal."""
    return float(slot_f1(wanted, answer, schema) == 1)


def slot_f1(wanted: str, answer: str, schema: OutputSchema) -> float:
    """The F1 of the slots that both share, as slot filling is scored since CoNLL (Tjong Kim Sang and De Meulder 2003,
    aclanthology.org/W03-0419): what is found counts where its kind and its whole value are right.

    A slot is a path into the object with the value there. Strings are
    equal up to white space and Unicode form, numbers by their value (1 and 1.0), and case counts. The order of keys and
    of a list's items does not count: items are paired so that they share most. An empty object or list is one slot.
    An answer that is not JSON, or does not satisfy the schema, scores 0.
    """
    try:
        said, right = schema.parsed(answer), parsed(wanted)
    except InvalidOutput:
        return 0.0
    return 2 * _shared(right, said) / (_slots(right) + _slots(said))


def _slots(value: Any) -> int:
    """How many leaves a value has."""
    if isinstance(value, dict | list) and value:
        return sum(map(_slots, value.values() if isinstance(value, dict) else value))
    return 1


def _shared(one: Any, other: Any) -> int:
    """How many leaves two values share."""
    if isinstance(one, dict) and isinstance(other, dict) and one and other:
        return sum(_shared(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list) and one and other:
        shared = np.array([[_shared(mine, theirs) for theirs in other] for mine in one])
        return int(shared[linear_sum_assignment(shared, maximize=True)].sum())
    return int(_leaf(one) == _leaf(other))


def _leaf(value: Any) -> tuple[str, Any]:
    """A value as it is compared, with its type: JSON's true is not 1."""
    if isinstance(value, str):
        return "text", tidy(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return type(value).__name__, value

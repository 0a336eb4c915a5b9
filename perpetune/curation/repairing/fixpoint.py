"""Changing a text until nothing changes, so that a step that runs on its own output changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

_MOST_TIMES = 20  # text that was escaped or encoded more often is a test of ours


def until_stable(change: Callable[[Value], Value], value: Value) -> Value:
    """The value, such as a text, after as many changes as it takes, at most 20."""
    for _ in range(_MOST_TIMES):
        before, value = value, change(value)
        if value == before:
            break
    return value

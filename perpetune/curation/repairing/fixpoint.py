"""Changing a text until nothing changes, so that a step that runs on its own output changes nothing."""

from __future__ import annotations

from collections.abc import Callable

_MOST_TIMES = 20  # text that was escaped or encoded more often is a test of ours


def until_stable(change: Callable[[str], str], text: str) -> str:
    """The text after as many changes as it takes; as it was if that has no end."""
    before = text
    for _ in range(_MOST_TIMES):
        after = change(before)
        if after == before:
            return after
        before = after
    return text

"""The longest common prefix of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Token = TypeVar("Token", int, str)


def common_prefix(sequences: Sequence[Sequence[Token]]) -> tuple[Token, ...]:
    """The longest common prefix, as a tuple of tokens or characters."""
    low, high = min(map(tuple, sequences)), max(map(tuple, sequences))
    length = next((position for position, token in enumerate(low) if high[position] != token), len(low))
    return low[:length]

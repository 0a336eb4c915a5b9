"""Sampling keys by hash: the same in every process, and a subset of every larger sample."""

from __future__ import annotations

import hashlib

_SPAN = 2**64


def is_sampled(key: str, ratio: float) -> bool:
    """Whether the key is in the sample of this ratio (0 to 1)."""
    return _number(key) < ratio * _SPAN


def hash_fraction(key: str) -> float:
    """A number from 0 to 1 that is uniform over keys."""
    return _number(key) / _SPAN


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")

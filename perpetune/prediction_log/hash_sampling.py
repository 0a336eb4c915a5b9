"""Sampling keys by hash: the same in every process, and a subset of every larger sample."""

from __future__ import annotations

import hashlib

_SPAN = 2**64


def is_sampled(key: str, ratio: float) -> bool:
    """Whether the key is in the sample of this ratio (0 to 1)."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < ratio * _SPAN

"""A share of keys, drawn by hash: the same in every process, and within every larger share."""

from __future__ import annotations

import hashlib

_SPAN = 2**64


def is_sampled(key: str, share: float) -> bool:
    """Whether the key is among this share (0 to 1) of all."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * _SPAN

"""Which requests fall to a version on trial."""

from __future__ import annotations

import hashlib

from perpetune.release import Trial

_SPAN = 2**64


def falls_to(trial: Trial, key: str) -> bool:
    """Whether the user or session `key` is among the trial's share.

    The same for all of its requests in all gateways, and independent from one trial to the next. Who is in a share is
    in every larger one too.
    """
    digest = hashlib.sha256(f"{trial.version}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < trial.share * _SPAN

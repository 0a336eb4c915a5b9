"""Rate limit per caller."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_CALLERS = 10_000


class RateLimit:
    """A token bucket per caller: `per_minute` requests, with bursts of a tenth of them (at least one).

    A bucket is stored as the time at which it is full again (generic cell rate algorithm, ITU-T I.371). The `callers`
    most recently used buckets are kept; a new caller begins with a full bucket.
    """

    def __init__(
        self, per_minute: int, *, callers: int = _CALLERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 60 / per_minute
        self._tolerance = self._interval * (max(1, per_minute // 10) - 1)
        self._callers = callers
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, caller: str) -> float:
        """Take one request from the caller's bucket; returns 0, or the seconds to wait."""
        now = self._clock()
        full_at = max(now, self._full_at.get(caller, now))
        wait = full_at - now - self._tolerance
        if wait > 1e-9:
            return wait
        self._full_at[caller] = full_at + self._interval
        self._full_at.move_to_end(caller)
        if len(self._full_at) > self._callers:
            self._full_at.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        return len(self._full_at)

"""Objects that live as long as the process, kept out of the garbage collector's full passes.

A full pass visits every object and stops all requests meanwhile: with a registry's client and a tokenizer loaded that is
some 600,000 objects and a third of a second, and at 64 requests in flight it came once in 600 requests.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

# Objects made since the last pass over young ones. Python's 700 are not even those of ten requests in flight, so that a
# pass finds little that is garbage, and promotes what is only in flight.
_YOUNG = 10_000


class LastingObjects:
    """Freezes what is there whenever `loaded` gives something else: at first, and when releases were loaded or unloaded."""

    def __init__(self, loaded: Callable[[], tuple[str, ...]]) -> None:
        self._loaded = loaded
        self._frozen: tuple[str, ...] | None = None

    def freeze_new(self) -> None:
        """Collect what is garbage, of what was frozen before too, and let later passes visit only new objects."""
        loaded = self._loaded()
        if loaded == self._frozen:
            return
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
        self._frozen = loaded

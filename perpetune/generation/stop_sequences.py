"""The text of an answer as it may be said while more of it comes."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Text without the space around it, up to the first stop string.

    What could be the beginning of a stop string, or the space at the end, is held back until more is known.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [one for one in stop if one]
        self._held = ""
        self.said = ""
        self.stopped = False

    def add(self, piece: str) -> str:
        """What may be said now."""
        self._held += piece
        positions = [position for one in self._stop if (position := self._held.find(one)) >= 0]
        if not positions:
            return self._say(len(self._held) - self._doubtful())
        self.stopped = True
        return self.end(min(positions))

    def end(self, cut: int | None = None) -> str:
        """What was held back, where no more comes."""
        piece = self._say(len(self._held) if cut is None else cut)
        self._held = ""
        return piece

    def _doubtful(self) -> int:
        """How many characters at the end could begin a stop string."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        return next(
            (size for size in range(longest, 0, -1) if any(one.startswith(self._held[-size:]) for one in self._stop)),
            0,
        )

    def _say(self, length: int) -> str:
        clear = self._held[:length].rstrip()
        self._held = self._held[len(clear) :]
        piece = clear if self.said else clear.lstrip()
        self.said += piece
        return piece

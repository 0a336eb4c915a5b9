"""Stop sequences in a streamed answer."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Streams text up to the first stop string, without leading and trailing whitespace.

    Text that may begin a stop string and trailing whitespace are buffered until the next piece decides. `text` is what
    was released, after the whitespace `leading`; `rest` is what is buffered, or at the end what was cut.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [one for one in stop if one]
        self._buffer = ""
        self.text = ""
        self.leading = ""
        self.rest = ""
        self.stopped = False

    def add(self, piece: str) -> str:
        """Add generated text; returns what can be sent."""
        self._buffer += piece
        positions = [position for one in self._stop if (position := self._buffer.find(one)) >= 0]
        if not positions:
            return self._release(len(self._buffer) - self._possible_stop())
        self.stopped = True
        return self.end(min(positions))

    def end(self, cut: int | None = None) -> str:
        """Return what is buffered, at the end of generation."""
        piece = self._release(len(self._buffer) if cut is None else cut)
        self.rest, self._buffer = self._buffer, ""
        return piece

    def _possible_stop(self) -> int:
        """How many characters at the end could begin a stop string."""
        longest = min(len(self._buffer), max(map(len, self._stop), default=1) - 1)
        return next(
            (size for size in range(longest, 0, -1) if any(one.startswith(self._buffer[-size:]) for one in self._stop)),
            0,
        )

    def _release(self, length: int) -> str:
        clear = self._buffer[:length].rstrip()
        self._buffer = self.rest = self._buffer[len(clear) :]
        piece = clear if self.text else clear.lstrip()
        if not self.text:
            self.leading = clear[: len(clear) - len(piece)]
        self.text += piece
        return piece

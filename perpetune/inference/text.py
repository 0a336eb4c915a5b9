"""The text of an answer, piece by piece, as its tokens come."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Pieces:
    """Tokens as text. What ends within a character waits for the tokens that complete it.

    A few tokens before are decoded along, since some tokenizers write a space only between two of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = 0
        self._told = 0

    def add(self, token: int) -> str:
        """What the token adds to the text, "" where a character is not complete yet."""
        self._tokens.append(token)
        piece = self._untold()
        return "" if piece.endswith(UNFINISHED) else self._tell(piece)

    def rest(self) -> str:
        """What still waits, with replacement characters where it is no text."""
        return self._tell(self._untold())

    def _untold(self) -> str:
        before = self._decode(self._tokens[self._context : self._told])
        return self._decode(self._tokens[self._context :])[len(before) :]

    def _tell(self, piece: str) -> str:
        if piece:
            self._context, self._told = self._told, len(self._tokens)
        return piece

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class Text:
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
        places = [place for one in self._stop if (place := self._held.find(one)) >= 0]
        if not places:
            return self._say(len(self._held) - self._doubtful())
        self.stopped = True
        return self.end(min(places))

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

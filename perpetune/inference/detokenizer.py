"""The text of an answer, piece by piece, as its tokens come."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
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

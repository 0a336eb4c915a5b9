"""Incremental detokenization."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns tokens into text. An incomplete character is held back until its tokens are complete.

    Preceding tokens are decoded again, because some tokenizers write a space only between two tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = 0
        self._sent = 0

    def add(self, token: int) -> str:
        """The text that the token adds; "" if a character is still incomplete."""
        self._tokens.append(token)
        piece = self._unsent()
        return "" if piece.endswith(UNFINISHED) else self._send(piece)

    def rest(self) -> str:
        """The text held back, with replacement characters for incomplete ones."""
        return self._send(self._unsent())

    def _unsent(self) -> str:
        before = self._decode(self._tokens[self._context : self._sent])
        return self._decode(self._tokens[self._context :])[len(before) :]

    def _send(self, piece: str) -> str:
        if piece:
            self._context, self._sent = self._sent, len(self._tokens)
        return piece

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

"""The log-probabilities of the tokens of one answer, with the text and the bytes of each."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from perpetune.generation.answer import TokenLogprob
from perpetune.generation.token_alignment import decoded, with_text
from perpetune.inference.decoding.detokenizer import UNFINISHED

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # byte fallback of SentencePiece's vocabularies


def token_logprob(tokenizer: PreTrainedTokenizerBase, token: int, logits: torch.Tensor, top: int) -> TokenLogprob:
    """The log-probability of a token and of the `top` best, from logits of shape (vocabulary,)."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(top)
    shown = [_shown(tokenizer, one) for one in best.indices.tolist()]
    text, utf8 = _shown(tokenizer, token)
    return TokenLogprob(
        token=text,
        logprob=float(logprobs[token]),
        top=tuple((one, weight) for (one, _), weight in zip(shown, best.values.tolist(), strict=True)),
        utf8=utf8,
        top_utf8=tuple(part for _, part in shown) if any(part for _, part in shown) else (),
    )


class TokenTexts:
    """Gives tokens the text that they add to the answer. Those of one character wait for each other."""

    def __init__(self) -> None:
        self._waiting: list[TokenLogprob] = []

    def add(self, token: TokenLogprob) -> None:
        self._waiting.append(token)

    def text(self, piece: str) -> list[TokenLogprob]:
        """The tokens that add this piece to the text; none if it is empty: a character is not complete."""
        if not piece or not self._waiting:
            return []
        run, self._waiting = self._waiting, []
        for parts in (_bytes(run), _bytes_of_characters(run)):
            if len(run) > 1 and b"".join(parts) == piece.encode():
                return [with_text(token, *each) for token, each in zip(run, decoded(parts), strict=True)]
        *before, last = run
        # Inside of a character, if the answer ends there, its tokens keep their bytes.
        broken = last.utf8 if UNFINISHED in piece else None
        return [*(with_text(token, "", token.utf8 or b"") for token in before), with_text(last, piece, broken)]

    def rest(self) -> list[TokenLogprob]:
        """The tokens left that add no text, such as control tokens."""
        run, self._waiting = self._waiting, []
        return [with_text(token, "", b"") for token in run]


def _bytes(run: Sequence[TokenLogprob]) -> list[bytes]:
    return [token.token.encode() if token.utf8 is None else token.utf8 for token in run]


def _bytes_of_characters(run: Sequence[TokenLogprob]) -> list[bytes]:
    """The same, if the tokens before the last one that are no part of a character are control tokens without text."""
    *before, last = run
    return [*(token.utf8 or b"" for token in before), *_bytes([last])]


def _shown(tokenizer: PreTrainedTokenizerBase, token: int) -> tuple[str, bytes | None]:
    """A token by itself, as OpenAI shows it: its text or, of a part of a character, its bytes as escapes."""
    text = str(tokenizer.decode([token]))
    if UNFINISHED not in text:
        return text, None
    utf8 = token_bytes(tokenizer, token)
    if utf8 is None:
        return text, None
    return "".join(f"\\x{byte:02x}" for byte in utf8), utf8


def token_bytes(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes | None:
    """The bytes of a token that is a part of a character; None if its vocabulary does not tell."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if found := _BYTE.fullmatch(piece):
        return bytes.fromhex(found[1])
    if all(character in _BYTES for character in piece):
        return bytes(_BYTES[character] for character in piece)
    return None


def _byte_characters() -> dict[str, int]:
    """The byte of each character in the vocabularies of byte-level BPE (Radford et al., 2019, GPT-2's encoder)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_characters()

"""Prompts to tokens by segments, so that what many prompts share is encoded once: the instruction, earlier turns.

A tokenizer cuts a text at its special tokens before it normalises or splits anything, and treats the pieces on their own.
A segment therefore has the same tokens in every text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perpetune.model.chat.control_tokens import pattern_of

_KEPT = 128  # segments
_MAX_CHARS = 32_768  # of a segment that is kept: 128 of 8,000 tokens take 40 MB
_PROBED = 16  # special tokens; some tokenizers have thousands
_PROBES = ("{0} a\n\n{0}\n  b {0}Größe 你好 {0}", "x {0}{0} \n", "{0}user\nHello<|{0}|> there. {0}\n")


class SegmentEncoder:
    """Encodes texts without added BOS. Each of its segments begins with a special token, but perhaps the first."""

    def __init__(self, backend: Tokenizer, added: tuple[AddedToken, ...]) -> None:
        self._backend = backend
        # All tokens that are found in the text as it is, because the leftmost and longest one counts.
        self._tokens = pattern_of([token.content for token in added if not token.normalized])
        self._cuts = frozenset(token.content for token in added if is_cut(token))
        self._kept: Callable[[str], tuple[int, ...]] = lru_cache(_KEPT)(self._encode)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        begin = 0
        for found in self._tokens.finditer(text):
            if found.group() in self._cuts and found.start() > begin:
                tokens += self._segment(text[begin : found.start()])
                begin = found.start()
        tokens += self._segment(text[begin:])
        return tokens

    def _segment(self, text: str) -> tuple[int, ...]:
        return self._kept(text) if len(text) <= _MAX_CHARS else self._encode(text)

    def _encode(self, text: str) -> tuple[int, ...]:
        _unset(self._backend)
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)


def is_cut(token: AddedToken) -> bool:
    """Whether a text may be cut before it: it is found before normalisation, and takes no spaces from what is before it."""
    return token.special and not (token.normalized or token.lstrip or token.single_word)


def segment_encoder(tokenizer: PreTrainedTokenizerBase) -> SegmentEncoder | None:
    """An encoder with the tokenizer's results; None if it does not do all of it in the library `tokenizers`."""
    if not _is_plain(tokenizer):
        return None
    added = tuple(tokenizer.added_tokens_decoder.values())
    encoder = SegmentEncoder(tokenizer.backend_tokenizer, added)
    cuts = [token.content for token in added if is_cut(token)][:_PROBED]
    probes = [probe.format(content) for probe in _PROBES for content in cuts]
    same = all(encoder.encode(each) == tokenizer(each, add_special_tokens=False)["input_ids"] for each in probes)
    return encoder if cuts and same else None


def _is_plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    return isinstance(tokenizer, PreTrainedTokenizerFast) and not tokenizer.split_special_tokens


def _unset(backend: Tokenizer) -> None:
    """Undo what other calls of the tokenizer left behind, as it does itself before each."""
    if backend.encode_special_tokens:
        backend.encode_special_tokens = False
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()

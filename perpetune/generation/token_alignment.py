"""Log-probabilities of exactly the text that an answer has: without the whitespace and the stop string cut from it."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import replace

from perpetune.generation.answer import TokenLogprob
from perpetune.generation.stop_sequences import StopFilter

_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that go on with a character


class AlignedLogprobs:
    """Holds tokens back until their text is released, and cuts them as the text is cut.

    Tokens that do not concatenate to the text, as a server may send them, are passed on as they are.
    """

    def __init__(self) -> None:
        self._waiting: list[TokenLogprob] = []
        self._begins = 0  # where the waiting tokens begin in the text before cutting
        self._aligned = True

    def extend(self, tokens: Iterable[TokenLogprob]) -> None:
        self._waiting.extend(tokens)

    def take(self, text: StopFilter, *, final: bool = False) -> tuple[TokenLogprob, ...]:
        """The tokens of the text that was released since the last call; at the end also those in part cut."""
        if not self._agrees(text, final):
            self._aligned = False
        if not self._aligned:
            return self._take_all()
        start = len(text.leading)
        end = start + len(text.text)
        taken: list[TokenLogprob] = []
        while self._waiting and end > start:
            token = self._waiting[0]
            ends = self._begins + len(token.token)
            if self._begins >= end or (ends > end and not final):
                break
            if ends > start or (not token.token and self._begins >= start):
                taken.append(cut(token, max(0, start - self._begins), max(0, ends - end)))
            elif token.utf8:  # all its text is cut, but not the part of a character behind it
                taken += [rest] if (rest := cut(token, len(token.token), 0)).utf8 else []
            self._begins = ends
            del self._waiting[0]
        if final:
            self._waiting.clear()
        return tuple(taken)

    def _agrees(self, text: StopFilter, final: bool) -> bool:
        """Whether the waiting tokens say the same as the text, as far as both go."""
        said = "".join(token.token for token in self._waiting)
        raw = (text.leading + text.text + text.rest)[self._begins :]
        if final and not raw and not text.text:  # nothing to compare with, as in a call of a tool
            return not said
        return raw.startswith(said) or said.startswith(raw)

    def _take_all(self) -> tuple[TokenLogprob, ...]:
        taken = tuple(self._waiting)
        self._waiting.clear()
        return taken


def decoded(parts: Sequence[bytes]) -> list[tuple[str, bytes | None]]:
    """The text of the characters that each part completes, and its bytes if they are not those of this text."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(part, final=place == len(parts)) for place, part in enumerate(parts, start=1)]
    return [(text, None if part == text.encode() else part) for text, part in zip(texts, parts, strict=True)]


def cut(token: TokenLogprob, front: int, back: int) -> TokenLogprob:
    """The token without so many characters at either end, even if it is one of its own top tokens."""
    if not front and not back:
        return token
    return with_text(token, token.token[front : len(token.token) - back], _cut_bytes(token, front, back))


def _cut_bytes(token: TokenLogprob, front: int, back: int) -> bytes | None:
    """The token's bytes without those of the characters cut, of which the first may have begun in an earlier token."""
    if token.utf8 is None:
        return None
    begun_before = 0
    if continued := len(token.utf8) - len(token.utf8.lstrip(_CONTINUATION)):
        begun_before = max(0, len(_utf8(token.token[:1])) - continued)
    kept = len(token.token) - back
    begins = len(_utf8(token.token[:front])) - (begun_before if front else 0)
    ends = len(_utf8(token.token[:kept])) - (begun_before if kept else 0) if back else len(token.utf8)
    return token.utf8[begins : max(begins, ends)]


def with_text(token: TokenLogprob, text: str, utf8: bytes | None) -> TokenLogprob:
    """The token with another text and its bytes, even if it is one of its own top tokens."""
    places = [place for place, (one, logprob) in enumerate(token.top) if (one, logprob) == (token.token, token.logprob)]
    top, top_utf8 = list(token.top), list(token.top_utf8 or (None,) * len(token.top))
    for place in places[:1]:
        top[place], top_utf8[place] = (text, token.logprob), utf8
    return replace(
        token,
        token=text,
        utf8=utf8,
        top=tuple(top),
        top_utf8=tuple(top_utf8) if any(part is not None for part in top_utf8) else (),
    )


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")

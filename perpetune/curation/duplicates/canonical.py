"""The canonical form of a text: what remains without case, punctuation, markup, greeting, signature and numbering.

For comparisons only: two texts with one canonical form are variants of each other. Nothing is trained on it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from perpetune.curation.duplicates.edges import core
from perpetune.curation.duplicates.letters import emoji_of, letters_of
from perpetune.curation.duplicates.plain import plain
from perpetune.curation.text import normalised
from perpetune.records import Example, Message

Turns = tuple[tuple[str, str], ...]

# The signs by which formulas, prices and emoji differ.
_SIGNS = re.compile(
    r"(?<=\w)[*/\\^&|~=+<>](?=\w)|(?<=\d)\s?[-*/]\s?(?=\d)|(?<![\w-])-(?=\d)|[=+<>^$€£¥%@~|]"
    r"|[\u2190-\u2bff\U0001f000-\U0001faff]"
)
_ANY_SIGN = re.compile(r"[*/\\^&|~=+<>$€£¥%@\u2190-\u2bff\U0001f000-\U0001faff-]")


def canonical(text: str) -> str:
    """The letters and digits of the bare text, without spaces; without any, its emoji, else the normalised text."""
    shown = bare(text)
    return letters_of(shown) or emoji_of(shown) or normalised(text)


def bare(text: str) -> str:
    """The text in plain form without what is certainly a greeting, a signature or numbering."""
    return _bare_and_kept(text) if len(text) <= _SHORT else _bare(text)


def _bare(text: str) -> str:
    return core(plain(text))


# A split asks for each text several times. Long ones would fill the memory.
_SHORT = 500
_bare_and_kept = lru_cache(maxsize=2**17)(_bare)


def canonical_turns(row: Example) -> Turns:
    """The conversation before the output in canonical form, without system messages."""
    if not row.messages:
        return (("user", canonical(row.input)),)
    return tuple((turn.role, canonical(turn.content)) for turn in row.messages if turn.role != "system")


def variant_key(row: Example) -> object:
    """The same for rows whose inputs are variants of each other, so that different labels contradict each other.

    Unlike the canonical form it keeps system messages, and the signs by which formulas, prices and emoji differ.
    """
    turns = row.messages or (Message(role="user", content=row.input),)
    return tuple(
        (turn.role, normalised(turn.content))
        if turn.role == "system"
        else (turn.role, canonical(turn.content), _signs(bare(turn.content)))
        for turn in turns
    )


def _signs(text: str) -> str:
    return "".join(map(str.strip, _SIGNS.findall(text))) if _ANY_SIGN.search(text) else ""

"""What a row's input may say: with and without what may be markup, numbering, a greeting, a signature.

A rule that takes something away is decided by marks that a variant of the text may lack: "(b) the buyer" begins with a
number, and "b the buyer" perhaps with a word. So variants are found by any reading that they share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from perpetune.curation.duplicates.canonical import bare
from perpetune.curation.duplicates.edges import core, cores, edges_of, loose_cores
from perpetune.curation.duplicates.letters import folded, unmarked, words_of
from perpetune.curation.duplicates.plain import one_form, plain
from perpetune.curation.duplicates.shared_keys import digest
from perpetune.curation.text import normalised
from perpetune.records import Example

Turn = tuple[str, str]
Words = tuple[str, ...]

SHORT_WORDS, SHORT_LETTERS = 4, 8
"""Texts with fewer words, and so many letters at least, are compared letter by letter too, so that a typo is found."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What a row may say, by 64-bit hashes, and in what forms it is compared with others.

    Rows that share one of `sure` are variants of each other; `main` is one of these. A row is nearly so if one of its
    `loose` is `sure` of another: it has a short clause more, at the beginning or the end. `words` are compared word by
    word, `letters` passage by passage: each without what is certainly no part of the text, and with it if there is any.
    """

    main: int
    sure: tuple[int, ...]
    loose: tuple[int, ...]
    words: tuple[Words, ...]
    letters: tuple[str, ...]


def readings_of(rows: Sequence[Example]) -> list[Readings]:
    return list(map(_readings, rows))


def _readings(row: Example) -> Readings:
    *earlier, (role, text) = turns_of(row)
    whole = plain(text)
    edges = edges_of(whole)
    short = core(whole) if edges.are_any else whole
    main = _letters(short)
    sure = dict.fromkeys((main, *map(_letters, cores(whole, edges)), _letters(one_form(text))))
    loose = dict.fromkeys(map(_letters, loose_cores(whole, edges)))
    if not whole.isascii() and (without_marks := unmarked(whole)):
        loose[without_marks] = None
    before = _histories(earlier)
    forms = [[*map(bare, (text for _, text in earlier)), short], [*map(plain, (text for _, text in earlier)), whole]]
    forms = forms if forms[0] != forms[1] else forms[:1]
    return Readings(
        main=_hash(before[0], role, main),
        sure=tuple(_hash(history, role, letters) for history in before for letters in sure),
        loose=tuple(_hash(history, role, letters) for history in before for letters in loose if letters not in sure),
        words=_words(forms),
        letters=tuple("\n".join(map(folded, texts)) for texts in forms),
    )


def _words(forms: Sequence[Sequence[str]]) -> tuple[Words, ...]:
    """The words of each form; and the letters if there are few words."""
    found = [tuple(word for text in texts for word in words_of(text)) for texts in forms]
    letters = "".join(found[0])
    if len(found[0]) < SHORT_WORDS and len(letters) >= SHORT_LETTERS and letters.isalpha():
        found.append(tuple(letters))
    return tuple(found)


def _histories(turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], ...]:
    """The turns before the last one: without what is certainly no part of them first; with it; one of them in each reading."""
    ways = [
        [bare(text) for _, text in turns],
        [plain(text) for _, text in turns],
        [one_form(text) for _, text in turns],
    ]
    for place, text in enumerate(ways[1]):
        ways += [[*ways[1][:place], other, *ways[1][place + 1 :]] for other in cores(text, edges_of(text))]
    roles = [role for role, _ in turns]
    return tuple(dict.fromkeys(tuple(zip(roles, map(_letters, texts), strict=True)) for texts in ways))


def turns_of(row: Example) -> list[Turn]:
    """The conversation before the output, without system messages."""
    turns: list[Turn] = [(turn.role, turn.content) for turn in row.messages if turn.role != "system"]
    return turns or [("user", row.input)]


def _letters(text: str) -> str:
    """The letters; of a text without any, such as ":-)", its signs, each once in a row and without those that end sentences."""
    return folded(text) or _REPEATED.sub(r"\1", "".join(text.split()).strip(".,!?;…\"'")) or normalised(text)


_REPEATED = re.compile(r"(.)\1+")


def _hash(history: Sequence[Turn], role: str, letters: str) -> int:
    return digest((history, role, letters))

"""The canonical form of a text: what remains without case, punctuation, markup, greeting, signature and numbering.

For comparisons only: two texts with one canonical form are variants of each other. Nothing is trained on it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

from perpetune.curation.text import normalised
from perpetune.records import Example, Message

Turns = tuple[tuple[str, str], ...]

_TAG = re.compile(
    r"<!--.*?-->|</?[a-z][^<>]{0,300}>|\[/?(?:b|i|u|s|url|quote|code|size|color)(?:=[^\]]*)?\]", re.DOTALL
)
_EMPHASIS = re.compile(r"(?<!\w)[*`_~]+|[*`_~]+(?!\w)")
_LINE_BREAKS = re.compile(r"\s*\n\s*")
_LINK = re.compile(r"!?\[([^\]\[]*)\]\([^()\s]*\)")
# What a text must have for a pattern to be worth a try.
_MARKUP = ((("<", "["), _TAG, " "), (("](",), _LINK, r"\1"), (("*", "`", "_", "~"), _EMPHASIS, ""))

_GREETING_WORDS = (
    r"hi|hiya|hello|hey|heya|greetings|dear|good (?:day|morning|afternoon|evening)|hallo|guten (?:tag|morgen|abend)|moin"
    r"|sehr geehrte\w*|liebe[rs]?|bonjour|bonsoir|salut|hola|buenos d[ií]as|buenas (?:tardes|noches)|ciao|buongiorno|ol[aá]"
)
_ADDRESSED = r"there|all|team|everyone|everybody|folks|guys|again|sir|madam|sirs?/madam|or|and|support|customer|service"
_NO_NAMES = (
    r"i|i'm|im|my|me|the|a|an|is|are|am|was|be|this|that|these|it|its|it's|you|your|we|can|could|how|what|why|when|where|who"
    r"|which|please|help|to|in|on|of|at|by|for|from|with|not|no|so|just|still|do|does|did|don't|have|has|had|will|would|if"
    r"|but|very|too|one|as|after|before"
)
_NAME = rf"[ \t]+(?!(?:{_NO_NAMES})\b)[^\W\d_][\w.'-]*"
# Before a comma or a line end, other words may be a name: "Hi Anna,", "Dear Ms Smith,".
_GREETING = re.compile(
    rf"^(?:dear(?:{_NAME}){{1,3}}[ \t]*[,:!\n]+|(?:{_GREETING_WORDS})\b(?:(?:[ \t]+(?:{_ADDRESSED})\b)*[ \t]*"
    rf"(?:[,!:;.\n–—]|\s-\s)+|(?:{_NAME}){{1,2}}[ \t]*[,:\n]+|\s))\s*"
)

_CLOSING = (
    r"(?:many thanks|thanks|thank you|thx)(?: (?:a lot|so much|very much|again|in advance|for (?:your|the) help|all))*"
    r"|(?:with )?(?:(?:kind|kindest|best|warm|warmest|many) )?regards|best wishes|all the best|best|cheers"
    r"|sincerely(?: yours)?|yours(?: (?:sincerely|faithfully|truly))?|respectfully"
    r"|mit freundlichen gr(?:ü|ue?)ssen|(?:viele|liebe|beste) gr(?:ü|ue?)sse|danke(?: sch(?:ö|oe)n)?|vielen dank|mfg|lg"
    r"|cordialement|merci(?: d'avance)?|saludos|gracias|sent from my \w+(?: \w+)?"
)
_SIGNATURE = re.compile(
    rf"(?:[.!?,;:\n–—-]\s*(?:{_CLOSING})\b\W*?(?:[,\n!.–—-]\s*[^\W\d_][\w.'-]*(?:\s+[^\W\d_][\w.'-]*){{0,3}})?"
    r"|\s(?:thanks|thank you|cheers|thx)|\n\s*--\s*\n.*|\n\s*[-–—~]\s*[^\W\d_]\w*(?: [^\W\d_]\w*)?)\W*$",
    re.DOTALL,
)
_NUMBERING = re.compile(
    r"^(?:(?:(?:q|a|question|no|nr|item|row|ticket|case|example|step|number)[ .]*)?[#(\[]*\d{1,6}[)\]]*\s?[.):\]–/-]+\s+"
    r"|#\s?\d{1,6}\s+|[(\[]\d{1,6}[)\]]\s*|(?:\d{1,6}\.)+\d{1,6}\s+|[(\[]?(?:[a-z]|[ivx]{1,5})[.)\]]+\s+"
    r"|[-*•·–—>+#]+\s+|(?:q|question|input|text)\s?:\s+)"
)
# The signs by which formulas, prices and emoji differ.
_SIGNS = re.compile(r"(?<=\w)[*/\\^&|~=+<>](?=\w)|(?<=\d)-(?=\d)|[=+<>^$€£¥%@~|]|[\u2190-\u2bff\U0001f000-\U0001faff]")
_ANY_SIGN = re.compile(r"[*/\\^&|~=+<>$€£¥%@\u2190-\u2bff\U0001f000-\U0001faff-]")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\u3040-\u30ff\u3400-\u9fff ]+")


def canonical(text: str) -> str:
    """The letters and digits of the bare text, without spaces; the normalised text if it has none."""
    return bare(text).translate(_LETTERS) or normalised(text)


def tokens(text: str) -> tuple[str, ...]:
    """The words of the bare text, without their punctuation; of scripts without spaces, the characters."""
    letters = bare(text).translate(_WORDS)
    return tuple(letters.split() if letters.isascii() else _WORD.findall(letters))


def bare(text: str) -> str:
    """The text in one case and Unicode form (NFKC), without invisible characters, markup, greeting, signature, numbering.

    What would leave nothing is not taken away: "Hello!" and "Thanks" are texts of their own.
    """
    return _bare_and_kept(text) if len(text) <= _SHORT else _bare(text)


def _bare(text: str) -> str:
    plain = unicodedata.normalize("NFKC", _unescaped(_shown(text).casefold()))
    plain = unicodedata.normalize("NFKC", _shown(plain).casefold())
    for marks, pattern, replacement in _MARKUP:
        if any(mark in plain for mark in marks):
            plain = pattern.sub(replacement, plain)
    plain = _on_one_line(plain).strip()
    for pattern, times in ((_NUMBERING, 1), (_GREETING, 2), (_NUMBERING, 1), (_SIGNATURE, 3)):
        plain = _without(pattern, plain, times)
    return plain


def _shown(text: str) -> str:
    return text if text.isascii() else text.translate(_VISIBLE)


def _without(pattern: re.Pattern[str], text: str, times: int) -> str:
    """The text without so many matches, as long as letters or digits are left."""
    for _ in range(times):
        rest = pattern.sub("", text.lstrip("\"'“”„«»‚‘’ \t\n"), count=1).strip()
        if rest == text or not _has_letters(rest):
            break
        text = rest
    return text


def _has_letters(text: str) -> bool:
    first = text[:1]
    return (first.isascii() and first.isalnum()) or bool(text.translate(_LETTERS))


# A split asks for each text several times. Long ones would fill the memory.
_SHORT = 500
_bare_and_kept = lru_cache(maxsize=2**17)(_bare)


def _unescaped(text: str) -> str:
    """The text without HTML entities, also of entities; a row may have gone through several exports."""
    for _ in range(4):
        before, text = text, html.unescape(text)
        if text == before:
            break
    return text


def _on_one_line(text: str) -> str:
    """A text with a line break after nearly every word has no lines, so none of them is a greeting or a signature."""
    if "\n" not in text:
        return text
    words = text.split()
    return " ".join(words) if 5 * len(_LINE_BREAKS.findall(text)) >= 4 * (len(words) - 1) else text


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
    return "".join(_SIGNS.findall(text)) if _ANY_SIGN.search(text) else ""


def row_tokens(row: Example) -> tuple[str, ...]:
    """The words of the conversation before the output, without system messages."""
    if not row.messages:
        return tokens(row.input)
    return tuple(word for turn in row.messages if turn.role != "system" for word in tokens(turn.content))


class _Kept(dict[int, int | None]):
    """A table for `str.translate` that keeps characters of some categories, and learns each when it first occurs.

    `space` is put for whitespace.
    """

    def __init__(self, kept: str, space: int | None = None) -> None:
        super().__init__(dict.fromkeys((0x034F, *range(0xFE00, 0xFE10))))  # joiners and variants of one character
        self._kept = kept
        self._space = space

    def __missing__(self, code: int) -> int | None:
        other = self._space if chr(code).isspace() else None
        self[code] = code if unicodedata.category(chr(code))[0] in self._kept else other
        return self[code]


class _Visible(dict[int, int | None]):
    """Drops characters of the category Cf, such as zero-width spaces and soft hyphens."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code)) == "Cf" else code
        return self[code]


_LETTERS = _Kept("LMN")
_WORDS = _Kept("LMN", space=ord(" "))
_VISIBLE = _Visible()

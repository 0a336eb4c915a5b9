"""The plain form of a text: what remains without case, Unicode variants, invisible characters, entities and markup.

For comparisons only. Nothing is trained on it.
"""

from __future__ import annotations

import html
import re
import unicodedata

_BLOCKS = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL)
_TAG = re.compile(
    r"<!\[cdata\[|\]\]>|<[!?][a-z][^<>]{0,300}>|</?[a-z][^<>]{0,2000}>"
    r"|\[/?(?:b|i|u|s|url|img|quote|code|size|color|font|center|list|\*)(?:=[^\]]*)?\]"
)
_WIKI_LINK = re.compile(r"\[\[(?:[^\]\[|]*\|)?([^\]\[|]*)\]\]")
_LINK = re.compile(r"!?\[([^\]\[]*)\]\([^()\n]*\)")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w+-]*[ \t]*$", re.MULTILINE)
_COMMAND = re.compile(r"\\(?:text(?:bf|it|tt|sc|rm)|emph|underline|(?:sub)*section|paragraph|item)\b\*?")
_EMPHASIS = re.compile(r"(?<!\w)[*`_~]+|[*`_~]+(?!\w)")
# What a text must have for a pattern to be worth a try, and what is put in place of a match.
_MARKUP = (
    (("<",), _BLOCKS, " "),
    (("<", "[", "]]>"), _TAG, " "),
    (("[[",), _WIKI_LINK, r"\1"),
    (("](",), _LINK, r"\1"),
    (("```", "~~~"), _FENCE, " "),
    (("\\",), _COMMAND, " "),
    (("*", "`", "_", "~"), _EMPHASIS, ""),
)
_ANY_MARK = re.compile(r"[<\[*`_~\\]|\]\]>")
_LINE_BREAKS = re.compile(r"\s*\n\s*")


def plain(text: str) -> str:
    """The text in one case and Unicode form (NFKC), on one line if its lines say nothing, without markup."""
    shown = one_form(_unescaped(_visible(text).casefold()))
    if _ANY_MARK.search(shown):
        for marks, pattern, replacement in _MARKUP:
            if any(mark in shown for mark in marks):
                shown = pattern.sub(replacement, shown)
    return _on_one_line(shown).strip()


def one_form(text: str) -> str:
    """The text in one case and Unicode form (NFKC), without invisible characters."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", _visible(unicodedata.normalize("NFKC", _visible(text).casefold())).casefold())


def _visible(text: str) -> str:
    return text if text.isascii() else text.translate(_VISIBLE)


def _unescaped(text: str) -> str:
    """The text without HTML entities, also of entities; a row may have gone through several exports."""
    for _ in range(4 if "&" in text else 0):
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


class _Visible(dict[int, str | int | None]):
    """Drops characters of the category Cf, such as zero-width spaces and soft hyphens, and fillers that show nothing.

    A circled number is written in brackets.
    """

    def __missing__(self, code: int) -> str | int | None:
        char = chr(code)
        if unicodedata.decomposition(char).startswith("<circle>"):
            self[code] = f"({unicodedata.normalize('NFKC', char)}) "
        else:
            self[code] = None if unicodedata.category(char) == "Cf" else code
        return self[code]


_FILLERS = (0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10))
_VISIBLE = _Visible(dict.fromkeys(_FILLERS) | {ord("№"): "#", 0x20E3: ") "})  # U+20E3 makes a key of a digit

"""Seventeen ways in which people and exports write the same thing again, each as a function of a text."""

from __future__ import annotations

import html
import random
import unicodedata
from collections.abc import Callable

Change = Callable[[str, random.Random], str]

_NAMES = ("Anna", "Ms Okafor", "Tom Lindqvist", "José")
_GREETINGS = (
    "Hi, ",
    "Hello there, ",
    "Dear team,\n\n",
    "Good morning! ",
    "Hey {name}, ",
    "Dear {name}:\n",
    "Hallo, ",
    "hi ",
)
_SIGNATURES = (
    "\n\nBest regards,\n{name}", " Thanks!", "\nKind regards\n{name}", ". Thank you very much, {name}", "\n-- \n{name}\nSent from my phone",
)  # fmt: skip
_NUMBERS = ("{n}. ", "{n}) ", "({n}) ", "Q{n}: ", "#{n} ", "- ", "{n}.1 ", "Question {n}: ", "[{n}] ", "a) ")
_SPARE_WORDS = ("quickly", "anyway", "really", "please", "order", "currently", "blue")
_PARAPHRASES = {
    "how do i": "what is the way to", "my": "our", "can you": "would you", "why": "for what reason", "the": "this",
    "i want": "i would like", "card": "bank card", "not": "never", "is": "has been", "money": "cash",
}  # fmt: skip


def case(text: str, draw: random.Random) -> str:
    return draw.choice([text.upper(), text.lower(), text.title(), text.swapcase()])


def punctuation(text: str, draw: random.Random) -> str:
    removed = "".join(c for c in text if c.isalnum() or c.isspace())
    spaced = "".join(c if c.isalnum() or c.isspace() else " " for c in text)
    words = text.split()
    place = draw.randrange(len(words))
    comma = " ".join([*words[: place + 1], *words[place + 1 :]]).replace(words[place], words[place] + ",", 1)
    return draw.choice([removed, spaced, comma, f"{text}!!!", text.replace(".", " ..."), f"{text} -"])


def full_stop(text: str, draw: random.Random) -> str:
    return text[:-1] if text.endswith(".") else f"{text}."


def unicode_form(text: str, draw: random.Random) -> str:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    return draw.choice([unicodedata.normalize("NFD", text), unicodedata.normalize("NFKC", text), wide])


def zero_width(text: str, draw: random.Random) -> str:
    return "".join(c + (draw.choice("\u200b\u200d\ufeff\u00ad\u2060") if draw.random() < 0.2 else "") for c in text)


def markup(text: str, draw: random.Random) -> str:
    word = draw.choice(text.split())
    bold = text.replace(word, f"**{word}**", 1)
    tagged = text.replace(word, f"<b>{word}</b>", 1)
    return draw.choice(
        [f"<p>{text}</p>", f'<div class="q">{tagged}<br/></div>', bold, f"## {text}", f"> {text}", f"`{text}`"]
    )


def entities(text: str, draw: random.Random) -> str:
    escaped = html.escape(text).replace(" ", "&nbsp;", 1)
    return draw.choice([escaped, html.escape(escaped), text.replace("e", "&#101;", 1)])


def greeting(text: str, draw: random.Random) -> str:
    return draw.choice(_GREETINGS).format(name=draw.choice(_NAMES)) + text


def signature(text: str, draw: random.Random) -> str:
    return text + draw.choice(_SIGNATURES).format(name=draw.choice(_NAMES))


def numbering(text: str, draw: random.Random) -> str:
    return draw.choice(_NUMBERS).format(n=draw.randint(1, 400)) + text


def whitespace(text: str, draw: random.Random) -> str:
    return draw.choice(["  ", "\n"]).join(text.split(" ")) + draw.choice(["", "\t", "\u00a0", "\n\n"])


def quotes(text: str, draw: random.Random) -> str:
    curly = text.replace("'", "’")
    return draw.choice([f'"{text}"', f"“{curly}”", f"«{text}»", curly.replace('"', "”")])


def typo(text: str, draw: random.Random) -> str:
    place = draw.randrange(max(1, len(text) - 1))
    swapped = text[:place] + text[place + 1 : place + 2] + text[place : place + 1] + text[place + 2 :]
    return draw.choice([swapped, text[:place] + text[place + 1 :]])


def one_word(text: str, draw: random.Random) -> str:
    words = text.split()
    place = draw.randrange(len(words))
    spare = draw.choice(_SPARE_WORDS)
    new = draw.choice([[spare], [], [words[place], spare]])
    return " ".join([*words[:place], *new, *words[place + 1 :]])


def number(text: str, draw: random.Random) -> str:
    digits = [c for c in text if c.isdigit()]
    return text.replace(draw.choice(digits), str(draw.randint(10, 99)), 1) if digits else f"{text} 17"


def word_order(text: str, draw: random.Random) -> str:
    words = text.split()
    word = words.pop(draw.randrange(len(words)))
    return " ".join([word, *words])


def paraphrase(text: str, draw: random.Random) -> str:
    for old, new in _PARAPHRASES.items():
        text = f" {text.lower()} ".replace(f" {old} ", f" {new} ").strip()
    return text


KINDS: dict[str, Change] = {
    change.__name__: change
    for change in (
        case, punctuation, full_stop, unicode_form, zero_width, markup, entities, greeting, signature, numbering,
        whitespace, quotes, typo, one_word, number, word_order, paraphrase,
    )
}  # fmt: skip

NEVER_STRADDLE = (
    "case", "punctuation", "full_stop", "unicode_form", "zero_width", "markup", "entities", "greeting", "numbering",
    "whitespace", "quotes",
)  # fmt: skip

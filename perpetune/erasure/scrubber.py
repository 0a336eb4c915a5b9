"""Texts without what is erased, in reports: plain, in JSON and in HTML, whole or shortened."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any

ERASED = "[erased]"
SHORTEST = 20
"""Characters of the shortest text that is looked for within others; shorter ones are phrases of everybody."""
_PREFIX = 40
_SPACE = r"(?:\s|\\[nrt]|&nbsp;)+"
_DROPPED = ("golden",)
"""Lists from which an element goes as a whole: a golden prompt with another text proves nothing."""


class Scrubber:
    """Replaces erased texts by `[erased]`.

    `strings` are what `pattern` is about, as people and rows spell it: they are found however short they are and however they
    are escaped, in any case.
    """

    def __init__(self, pattern: re.Pattern[str] | None, texts: Iterable[str], strings: Iterable[str] = ()) -> None:
        self._pattern = pattern
        self._escaped = _escaped(strings)
        self._texts = sorted(set(texts), key=lambda text: (-len(text), text))

    def text(self, text: str) -> str:
        """The text without the erased ones, however they are written in it. Equal if it holds none."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, f">{ERASED}<" if form[0] == ">" and form[-1] == "<" else ERASED)
        for head, whole in self._shortened:
            if head in text:
                text = _without_beginning(text, head, whole)
        if self._pattern is not None:
            text = self._pattern.sub(ERASED, text)
        return self._escaped.sub(ERASED, text) if self._escaped else text

    def value(self, value: Any) -> Any:
        """A JSON value with every string scrubbed. Strings of one list stay different from each other.

        A string that is as a whole a short text of a row is scrubbed too, since it is a cell of a table.
        """
        return self._value(value, cells=True)

    def holds(self, value: Any) -> bool:
        """Whether a JSON value has a string with an erased text."""
        return bool(self._value(value, cells=False) != value)

    def _value(self, value: Any, within: str = "", *, cells: bool) -> Any:
        if isinstance(value, str):
            return ERASED if cells and value in self._whole and len(value.split()) > 1 else self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self._value(each, key, cells=cells) for key, each in value.items()}
        if isinstance(value, list):
            kept = [(each, self._value(each, within, cells=cells)) for each in value]
            if within in _DROPPED:
                return [new for old, new in kept if new == old and self._whole.isdisjoint(_strings(new))]
            return _different([new for _, new in kept]) if any(old != new for old, new in kept) else value
        return value

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(self._texts)

    @cached_property
    def _forms(self) -> list[str]:
        long = (text for text in self._texts if len(text) >= SHORTEST)
        cells = (text for text in self._texts if len(text) < SHORTEST and len(text.split()) > 1)
        forms = [form for text in long for form in _written(text)]
        return list(dict.fromkeys([*forms, *(f">{html.escape(text)}<" for text in cells)]))

    @cached_property
    def _shortened(self) -> list[tuple[str, str]]:
        long = (text for text in self._texts if len(text) > _PREFIX)
        pairs = ((write(text[:_PREFIX]), write(text)) for text in long for write in _WRITERS)
        return list(dict.fromkeys((head, whole) for head, whole in pairs if whole.startswith(head)))


def _escaped(strings: Iterable[str]) -> re.Pattern[str] | None:
    """What finds the strings if they are written in another way than plainly; None if all ways are the same."""
    forms = {form for each in set(strings) for write in _WRITERS if (form := write(each)) != each}
    if not forms:
        return None
    longest = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(_SPACE.join(map(re.escape, form.split())) for form in longest), re.IGNORECASE)


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _cell(text: str) -> str:
    """As it is in a cell of a Markdown table."""
    return " ".join("".join(f"\\{mark}" if mark in "\\|`*_<>[]" else mark for mark in text).split())


def _html_apostrophe(text: str) -> str:
    return html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


_VALUES: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(json.dumps(text, ensure_ascii=False)[1:-1], ensure_ascii=False)[1:-1],
    lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    lambda text: repr(text)[1:-1],
)
"""How a text is written in a value: plainly, in JSON, in JSON within JSON, in Python."""

_PAGES: tuple[Callable[[str], str], ...] = (
    str,
    html.escape,
    lambda text: html.escape(text, quote=False),
    _html_apostrophe,
    lambda text: " ".join(text.split()),
    _cell,
)
"""How a value is written in a page."""

_WRITERS: tuple[Callable[[str], str], ...] = tuple(
    partial(lambda page, value, text: page(value(text)), page, value) for value in _VALUES for page in _PAGES
)


def _written(text: str) -> list[str]:
    """The ways in which a text is written in a report, the longest first."""
    return sorted({write(text) for write in _WRITERS}, key=lambda form: (-len(form), form))


def _without_beginning(text: str, head: str, whole: str) -> str:
    """The text without the longest beginnings of `whole` that begin with `head`: what a report shows shortened."""
    parts, start = [], 0
    while (found := text.find(head, start)) >= 0:
        end = found + len(head)
        while end < len(text) and end - found < len(whole) and text[end] == whole[end - found]:
            end += 1
        parts += [text[start:found], ERASED]
        start = end
    return "".join([*parts, text[start:]])


def _different(values: list[Any]) -> list[Any]:
    """With a number at each scrubbed string but the first: a vocabulary must not lose a column."""
    if not all(isinstance(each, str) for each in values):
        return values
    seen: set[str] = set()
    result = []
    for each in values:
        new, number = each, 2
        while ERASED in each and new in seen:
            new, number = f"{each} {number}", number + 1
        seen.add(new)
        result.append(new)
    return result

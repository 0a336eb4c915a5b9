"""SVG elements. Colours are classes of the page, so that a picture follows its colour scheme."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

WIDTH = 390
"""Of every picture, in its own units: a phone shows it at almost a pixel each."""
FONT = 13
_LETTER = 0.55 * FONT  # the mean width of one


def picture(height: float, description: str, parts: Iterable[Markup]) -> Markup:
    """The picture, as wide as its place, with a description for those who cannot see it."""
    return Markup('<svg class="picture" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, number(height), description, Markup("").join(parts)
    )


def bar(x: float, y: float, width: float, height: float, colour: str, hint: str = "") -> Markup:
    """A bar of a colour class; `hint` shows when the pointer is on it."""
    title = Markup("<title>{}</title>").format(hint) if hint else Markup("")
    place = Markup('x="{}" y="{}" width="{}" height="{}"').format(*map(number, (x, y, max(width, 0), max(height, 0))))
    return Markup('<rect {} rx="2" class="{}">{}</rect>').format(place, colour, title)


def dot(x: float, y: float, radius: float, colour: str, hint: str = "") -> Markup:
    title = Markup("<title>{}</title>").format(hint) if hint else Markup("")
    place = Markup('cx="{}" cy="{}" r="{}"').format(*map(number, (x, y, radius)))
    return Markup('<circle {} class="{}">{}</circle>').format(place, colour, title)


def line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*map(number, (x1, y1, x2, y2)))


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> Markup:
    """Words at a baseline; `anchor` is start, middle or end, `kind` a class such as `soft`."""
    return Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(
        number(x), number(y), anchor, kind, words
    )


def fitted(words: str, width: float) -> str:
    """The words, cut in the middle so that they fit into a width: names often differ only at their end."""
    most = max(int(width / _LETTER), 3)
    if len(words) <= most:
        return words
    end = (most - 1) // 3
    return f"{words[: most - 1 - end]}…{words[len(words) - end :]}"


def width_of(words: Iterable[str]) -> float:
    """How wide the longest of these is, about."""
    return max((len(each) for each in words), default=0) * _LETTER


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def legend(names: Iterable[tuple[str, str]]) -> Markup:
    """What each colour class is."""
    items = (
        Markup('<span class="{}"><span class="dot"></span>{}</span>').format(colour, escape(name))
        for name, colour in names
    )
    return Markup('<div class="legend">{}</div>').format(Markup("").join(items))

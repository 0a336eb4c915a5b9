"""The two pages of a card: HTML with pictures, and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup

from perpetune.curation.card.content import Card


def render(card: Card, template: str, drawn: Mapping[str, Markup] | None = None) -> str:
    """Render the card with a template: `data_card.html`, with the pictures `drawn`, or `data_card.md`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    environment.filters["breakable"] = _breakable
    return environment.get_template(template).render(card=card, drawn=drawn or {}) + "\n"


def _cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    marks = str.maketrans({mark: f"\\{mark}" for mark in "\\|`*_<>[]"})
    return " ".join(text.translate(marks).split())


def _breakable(text: str) -> Markup:
    """HTML of a name with possible line breaks after underscores, because labels can be long."""
    return Markup("_<wbr>").join(text.split("_"))

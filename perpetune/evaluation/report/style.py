"""Colours and matplotlib settings of plots and reports."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Plots use the light colours; pages replace them by CSS variables that follow the reader's colour scheme.
LIGHT = {
    "ink": "#1d2433",
    "muted": "#667085",
    "line": "#e3e7ee",
    "paper": "#fefefe",
    "panel": "#f6f8fb",
    "majority": "#98a2b3",
    "linear": "#b7791f",
    "embeddings": "#5f8a1e",
    "base": "#64748b",
    "few-shot": "#c2570c",
    "recorded": "#7c3aed",
    "hosted": "#be3a82",
    "champion": "#0e8f87",
    "challenger": "#4054d6",
    "right": "#4055d7",
    "wrong": "#d6455b",
}
DARK = {
    "ink": "#e6eaf2",
    "muted": "#98a3b8",
    "line": "#2b3446",
    "paper": "#10151f",
    "panel": "#171e2b",
    "majority": "#7d889c",
    "linear": "#e0a94a",
    "embeddings": "#a3c957",
    "base": "#93a3b9",
    "few-shot": "#f08a4b",
    "recorded": "#b794f4",
    "hosted": "#f08bc0",
    "champion": "#35c4ba",
    "challenger": "#8b9bff",
    "right": "#8c9cff",
    "wrong": "#f27389",
}

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a label may hold a dollar sign
    "axes.labelcolor": LIGHT["muted"],
    "axes.edgecolor": LIGHT["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 1,
    "figure.facecolor": LIGHT["paper"],
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "perpetune",
}


def colour(system: str) -> str:
    """The colour of a system, in every plot."""
    return LIGHT.get(system, LIGHT["muted"])


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the style to everything drawn or saved in the context, without warnings about missing glyphs."""
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG at 160 dpi, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with house_style():
        figure.savefig(path, format="png", dpi=160)


def svg(figure: Figure, description: str) -> str:
    """The figure as a transparent `<svg>` element whose colours are the page's CSS variables.

    `description` is its aria-label; it is escaped here.
    """
    drawn = io.StringIO()
    with house_style():
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    element = re.sub(r"(?s)^.*?<svg", "<svg", drawn.getvalue(), count=1)
    element = re.sub(r"(?s)<metadata>.*?</metadata>", "", element)
    element = element.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    for name, value in LIGHT.items():
        element = element.replace(value, f"var(--{name})")
    return element

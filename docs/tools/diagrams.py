"""Draw the diagrams of the site: `python docs/tools/diagrams.py` writes docs/diagrams/*.svg.

A diagram is a grid of boxes and arrows. Colours are CSS variables, so that a page can set them; an image on its own
follows the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parents[1] / "diagrams"
WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 132, 50, 40, 34, 8
Kind = Literal["step", "data", "outcome"]
Side = Literal["left", "right", "top", "bottom"]

_STYLE = """
.diagram { --ink: #1f2937; --soft: #5b6472; --line: #7b8494; --step: #4051b5; --on-step: #ffffff; --data: #e8eaf6;
  --outcome: transparent; font-family: system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .diagram { --ink: #e5e7eb; --soft: #a4adbb; --line: #8c95a5; --step: #5c6bc0;
  --data: #2f3347; } }
.diagram rect { stroke: var(--line); stroke-width: 1; }
.diagram .step { fill: var(--step); stroke: none; } .diagram .data { fill: var(--data); stroke: none; }
.diagram .outcome { fill: var(--outcome); }
.diagram text { fill: var(--ink); font-size: 13px; text-anchor: middle; }
.diagram .on-step { fill: var(--on-step); } .diagram .small { font-size: 11px; }
.diagram .note { fill: var(--soft); font-size: 11px; }
.diagram path { fill: none; stroke: var(--line); stroke-width: 1.5; } .diagram .late { stroke-dasharray: 5 4; }
.diagram polygon { fill: var(--line); }
"""


@dataclass(frozen=True)
class Box:
    """A box in a column and a row, with a second line in small letters."""

    column: float
    row: float
    title: str
    note: str = ""
    kind: Kind = "step"

    @property
    def x(self) -> float:
        return EDGE + self.column * (WIDTH + GAP_X)

    @property
    def y(self) -> float:
        return EDGE + self.row * (HEIGHT + GAP_Y)

    def at(self, side: Side) -> tuple[float, float]:
        """The middle of a side."""
        across = {"left": 0.0, "right": WIDTH}.get(side, WIDTH / 2)
        down = {"top": 0.0, "bottom": HEIGHT}.get(side, HEIGHT / 2)
        return self.x + across, self.y + down


@dataclass(frozen=True)
class Arrow:
    """From a side of one box to a side of another, around corners if they are not in line."""

    start: str
    end: str
    out: Side = "right"
    into: Side = "left"
    note: str = ""
    late: bool = False


@dataclass(frozen=True)
class Diagram:
    boxes: Mapping[str, Box]
    arrows: tuple[Arrow, ...]


def svg(diagram: Diagram) -> str:
    width = max(box.x + WIDTH for box in diagram.boxes.values()) + EDGE
    below = 26 if any(arrow.out == arrow.into == "bottom" for arrow in diagram.arrows) else 0
    height = max(box.y + HEIGHT for box in diagram.boxes.values()) + EDGE + below
    parts = [
        f'<svg class="diagram" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}">',
        f"<style>{_STYLE}</style>",
        *(part for arrow in diagram.arrows for part in _arrow(diagram, arrow)),
        *(part for box in diagram.boxes.values() for part in _box(box)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(box: Box) -> Iterator[str]:
    yield f'<rect class="{box.kind}" x="{box.x:g}" y="{box.y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
    color = "on-step" if box.kind == "step" else "ink"
    x, y = box.x + WIDTH / 2, box.y + HEIGHT / 2
    yield f'<text class="{color}" x="{x:g}" y="{y - 3 if box.note else y + 5:g}">{escape(box.title)}</text>'
    if box.note:
        yield f'<text class="{color} small" x="{x:g}" y="{y + 14:g}">{escape(box.note)}</text>'


def _arrow(diagram: Diagram, arrow: Arrow) -> Iterator[str]:
    points = _corners(diagram.boxes[arrow.start].at(arrow.out), diagram.boxes[arrow.end].at(arrow.into), arrow)
    late = ' class="late"' if arrow.late else ""
    yield f'<path{late} d="M{" L".join(f"{x:g} {y:g}" for x, y in points)}"/>'
    yield _head(points[-2], points[-1])
    if arrow.note:
        x, y = _middle(points)
        yield f'<text class="note" x="{x:g}" y="{y - 5:g}">{escape(arrow.note)}</text>'


def _corners(start: tuple[float, float], end: tuple[float, float], arrow: Arrow) -> list[tuple[float, float]]:
    (x0, y0), (x1, y1) = start, end
    if arrow.out == arrow.into == "bottom":
        low = max(y0, y1) + 20
        return [start, (x0, low), (x1, low), end]
    if x0 == x1 or y0 == y1:
        return [start, end]
    if arrow.out in ("left", "right") and arrow.into in ("left", "right"):
        middle = (x0 + x1) / 2
        return [start, (middle, y0), (middle, y1), end]
    if arrow.out in ("top", "bottom") and arrow.into in ("top", "bottom"):
        middle = (y0 + y1) / 2
        return [start, (x0, middle), (x1, middle), end]
    corner = (x1, y0) if arrow.out in ("left", "right") else (x0, y1)
    return [start, corner, end]


def _head(before: tuple[float, float], tip: tuple[float, float]) -> str:
    """The point of an arrow that ends level or upright."""
    (x, y), step = tip, (_sign(tip[0] - before[0]), _sign(tip[1] - before[1]))
    back = (x - 8 * step[0], y - 8 * step[1])
    side = (4 * step[1], 4 * step[0])
    corners = [tip, (back[0] + side[0], back[1] + side[1]), (back[0] - side[0], back[1] - side[1])]
    return '<polygon points="' + " ".join(f"{a:g},{b:g}" for a, b in corners) + '"/>'


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _middle(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Above the longest level part, or beside an upright one."""
    level = [(abs(b[0] - a[0]), a, b) for a, b in pairwise(points) if a[1] == b[1]]
    if not level:
        return points[0][0] + 42, (points[0][1] + points[-1][1]) / 2 + 9
    _, a, b = max(level)
    return (a[0] + b[0]) / 2, a[1]


LOOP = Diagram(
    {
        "curate": Box(0, 0, "curate", "DVC"),
        "fine-tune": Box(1, 0, "fine-tune", "transformers, peft"),
        "evaluate": Box(2, 0, "evaluate", "MLflow"),
        "decide": Box(3, 0, "decide", "promotion gate"),
        "release": Box(4, 0, "release", "MLflow alias"),
        "serve": Box(4, 1.3, "serve", "gateway"),
        "log": Box(3, 1.3, "prediction log", "SQL", "data"),
        "watch": Box(2, 1.3, "watch", "Evidently, decay test"),
        "decayed": Box(1, 1.3, "decayed?", "Prefect automation", "outcome"),
        "examples": Box(0, 1.3, "examples", "files, labelled traffic", "data"),
    },
    (
        Arrow("examples", "curate", "top", "bottom"),
        Arrow("curate", "fine-tune"),
        Arrow("fine-tune", "evaluate"),
        Arrow("evaluate", "decide"),
        Arrow("decide", "release"),
        Arrow("release", "serve", "bottom", "top"),
        Arrow("serve", "log", "left", "right"),
        Arrow("log", "watch", "left", "right"),
        Arrow("watch", "decayed", "left", "right"),
        Arrow("decayed", "curate", "top", "bottom", "starts a refresh"),
        Arrow("log", "examples", "bottom", "bottom", "labels that arrive later", late=True),
    ),
)

CURATE = Diagram(
    {
        "sources": Box(0, 0, "sources", "files, inbox, traffic", "data"),
        "validate": Box(1, 0, "validate", "format, schema"),
        "clean": Box(2, 0, "clean", "duplicates, labels"),
        "split": Box(3, 0, "split", "by group"),
        "train": Box(4, 0, "training rows", "and validation", "data"),
        "holdouts": Box(4, 1, "holdouts", "frozen and recent", "data"),
        "quarantine": Box(1.5, 1, "quarantine", "row, reason", "outcome"),
    },
    (
        Arrow("sources", "validate"),
        Arrow("validate", "clean"),
        Arrow("clean", "split"),
        Arrow("split", "train"),
        Arrow("split", "holdouts", "bottom", "left"),
        Arrow("validate", "quarantine", "bottom", "top"),
        Arrow("clean", "quarantine", "bottom", "top"),
    ),
)

FINE_TUNE = Diagram(
    {
        "rows": Box(0, 0, "training rows", "a token tree a batch", "data"),
        "base": Box(0, 1, "base model", "never changed", "data"),
        "train": Box(1, 0.5, "train", "LoRA, label head"),
        "validation": Box(2, 0.5, "validate", "stop if no better"),
        "adapter": Box(3, 0.5, "adapter", "best checkpoint", "data"),
        "checkpoint": Box(1, 1.6, "checkpoint", "a killed run goes on", "outcome"),
    },
    (
        Arrow("rows", "train"),
        Arrow("base", "train"),
        Arrow("train", "validation"),
        Arrow("validation", "adapter"),
        Arrow("train", "checkpoint", "bottom", "top"),
    ),
)

EVALUATE = Diagram(
    {
        "rows": Box(0, 1, "held-out rows", "frozen and recent", "data"),
        "challenger": Box(1, 0, "challenger", "adapter"),
        "champion": Box(1, 1, "champion", "serves now"),
        "rivals": Box(1, 2, "rivals", "linear, base, majority"),
        "compare": Box(2, 1, "compare", "row by row"),
        "report": Box(3, 0.5, "evidence", "intervals, slices", "data"),
        "golden": Box(3, 1.5, "golden prompts", "for the release", "data"),
    },
    (
        Arrow("rows", "challenger"),
        Arrow("rows", "champion"),
        Arrow("rows", "rivals"),
        Arrow("challenger", "compare"),
        Arrow("champion", "compare"),
        Arrow("rivals", "compare"),
        Arrow("compare", "report"),
        Arrow("compare", "golden"),
    ),
)

DECIDE = Diagram(
    {
        "evidence": Box(0, 1, "evidence", "intervals, n", "data"),
        "frozen": Box(1, 0, "not worse?", "frozen holdout"),
        "recent": Box(1, 1, "better?", "recent holdout"),
        "limits": Box(1, 2, "no harm?", "slices, limits"),
        "gate": Box(2, 1, "promotion gate", "error rate stated"),
        "promote": Box(3, 0, "promote", "or wait for approval", "outcome"),
        "labels": Box(3, 1, "collect more labels", "how many", "outcome"),
        "reject": Box(3, 2, "reject", "and what to do next", "outcome"),
        "record": Box(4, 1, "decision record", "MLflow", "data"),
    },
    (
        *(Arrow("evidence", test) for test in ("frozen", "recent", "limits")),
        *(Arrow(test, "gate") for test in ("frozen", "recent", "limits")),
        *(Arrow("gate", verdict) for verdict in ("promote", "labels", "reject")),
        *(Arrow(verdict, "record") for verdict in ("promote", "labels", "reject")),
    ),
)

RELEASE = Diagram(
    {
        "version": Box(0, 0, "version", "MLflow registry", "data"),
        "load": Box(1, 0, "load", "beside the champion"),
        "parity": Box(2, 0, "check parity", "golden prompts"),
        "trial": Box(3, 0, "trial", "canary or shadow"),
        "champion": Box(4, 0, "champion", "previous stays loaded", "outcome"),
        "refused": Box(2, 1, "refused", "the old one serves on", "outcome"),
        "aborted": Box(3, 1, "aborted", "the old one serves on", "outcome"),
    },
    (
        Arrow("version", "load"),
        Arrow("load", "parity"),
        Arrow("parity", "trial"),
        Arrow("trial", "champion"),
        Arrow("parity", "refused", "bottom", "top"),
        Arrow("trial", "aborted", "bottom", "top"),
    ),
)

SERVE = Diagram(
    {
        "client": Box(0, 0, "client", "any OpenAI SDK", "data"),
        "gateway": Box(1, 0, "gateway", "keys, limits, routing"),
        "engine": Box(2, 0, "engine", "transformers or vLLM"),
        "spool": Box(1, 1, "spool", "a file"),
        "log": Box(2, 1, "prediction log", "SQL", "data"),
        "feedback": Box(0, 1, "feedback", "label, score", "data"),
    },
    (
        Arrow("client", "gateway"),
        Arrow("gateway", "engine"),
        Arrow("gateway", "spool", "bottom", "top"),
        Arrow("spool", "log"),
        Arrow("feedback", "gateway"),
    ),
)

WATCH = Diagram(
    {
        "log": Box(0, 1, "prediction log", "the newest window", "data"),
        "labels": Box(1, 0.5, "decay test", "each label once"),
        "drift": Box(1, 2, "drift report", "Evidently"),
        "keep": Box(2.2, 0, "keep", "no decay shown", "outcome"),
        "retrain": Box(2.2, 1, "retrain", "or roll back", "outcome"),
        "ask": Box(2.2, 2, "ask for labels", "if confidence fell too", "outcome"),
    },
    (
        Arrow("log", "labels"),
        Arrow("log", "drift"),
        Arrow("labels", "keep"),
        Arrow("labels", "retrain"),
        Arrow("drift", "ask"),
    ),
)

DIAGRAMS = {
    "loop": LOOP,
    "curate": CURATE,
    "fine-tune": FINE_TUNE,
    "evaluate": EVALUATE,
    "decide": DECIDE,
    "release": RELEASE,
    "serve": SERVE,
    "watch": WATCH,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, diagram in DIAGRAMS.items():
        (FOLDER / f"{name}.svg").write_text(svg(diagram), encoding="utf-8")


if __name__ == "__main__":
    main()

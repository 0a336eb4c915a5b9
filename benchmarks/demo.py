"""The chart of a finished demo and its numbers: docs/images/demo.svg and docs/images/demo.json.

    perpetune demo --folder demo         # about ten minutes on two cores
    python benchmarks/demo.py demo

Both files are drawn from the demo's own `demo.json` and hold nothing else. The chart follows the reader's light or dark
colours.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from perpetune.demo.report import ROLLING, rolling
from perpetune.demo.saved import read_saved
from perpetune.errors import PerpetuneError
from perpetune.evaluation.report.style import DARK, LIGHT, colour, house_style, svg

OUT = Path(__file__).parents[1] / "docs" / "images"
WITH, WITHOUT = colour("challenger"), colour("base")
SIZE = (8.0, 3.7)  # inches: 10 points of type are 14 pixels in a README 800 pixels wide
LABEL = 0.17  # height of a label of two lines
ENDS = {"after": ("with the loop", WITH, "bold"), "after_without": ("without", WITHOUT, "normal")}
TOP = 1.06  # where the moments are named, above 100%
KEPT = ("accuracies", "requests", "failed", "decay_at", "drift_at", "seconds", "device", "versions", "commit")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("folder", type=Path, help="that of a finished `perpetune demo`")
    arguments.add_argument("--out", type=Path, default=OUT, help="where demo.svg and demo.json go")
    asked = arguments.parse_args()
    try:
        saved = read_saved(asked.folder)
    except PerpetuneError as fault:
        print(fault, file=sys.stderr)
        return 1
    for path in write(saved, asked.out):
        print(path)
    return 0


def write(saved: Mapping[str, Any], out: Path) -> tuple[Path, Path]:
    """Draw `demo.svg` and write `demo.json` into the folder."""
    out.mkdir(parents=True, exist_ok=True)
    picture, numbers = out / "demo.svg", out / "demo.json"
    picture.write_text(as_svg(chart(saved), _description(saved)), encoding="utf-8")
    numbers.write_text(json.dumps(figures(saved), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return picture, numbers


def figures(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the run: accuracies with intervals, what the loop did when, and where it ran."""
    summary = saved["summary"]
    return {
        "verdict": summary["verdict"],
        "gain": summary["after"],
        "turned_at": summary["turned_at"],
        "swap_at": summary["swap_at"],
        "checks": [{"requests": check["requests"], "verdict": check["line"]} for check in summary["checks"]],
        **{name: saved[name] for name in KEPT},
    }


def chart(saved: Mapping[str, Any]) -> Figure:
    """Accuracy over the stream with and without the loop, the moments named above it."""
    summary = saved["summary"]
    moments, turned, swap = summary["moments"], summary["turned_at"], summary["swap_at"]
    cuts = [0, turned, *([] if swap is None else [swap]), len(moments)]
    with house_style():
        figure = Figure(figsize=SIZE, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
        axes = figure.subplots()
        axes.grid(axis="y")
        _line(axes, [moment["without_loop"] for moment in moments], [0, turned, len(moments)], WITHOUT, dashed=True)
        _line(axes, [moment["with_loop"] for moment in moments], cuts, WITH)
        _mark(axes, saved)
        _label_stretches(axes, saved)
        axes.set_ylim(0, 1.0)
        axes.set_xlim(1, len(moments))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
        axes.set_xlabel("requests", fontsize=10)
        axes.set_title(f"right answers among the last {ROLLING}", loc="left", fontsize=10, color=LIGHT["muted"], pad=26)
        return figure


def _line(axes: Axes, right: Sequence[bool | None], cuts: Sequence[int], ink: str, *, dashed: bool = False) -> None:
    """Rolling accuracy that starts again at each cut; requests that failed are left out."""
    style: Any = (0, (4, 2)) if dashed else "solid"
    for start, end in pairwise(cuts):
        kept = [(place + 1, bool(right[place])) for place in range(start, end) if right[place] is not None]
        shares = rolling([value for _, value in kept], 0)
        axes.plot([place for place, _ in kept], shares, color=ink, linestyle=style, linewidth=1.8 if dashed else 2.6)


def _mark(axes: Axes, saved: Mapping[str, Any]) -> None:
    """What happened when; the refresh is a span, since requests go on meanwhile."""
    turned, swap, decay = saved["summary"]["turned_at"], saved["summary"]["swap_at"], saved["decay_at"]
    _moment(axes, turned, "traffic changes", "left")
    if decay is not None:
        _moment(axes, decay, "decay found", "right")
    if decay is not None and swap is not None:
        axes.axvspan(decay, swap, color=LIGHT["panel"], linewidth=0, zorder=0)
        _name(axes, (decay + swap) / 2, "refresh", "center")
    if swap is not None:
        _moment(axes, swap, "new version", "left")


def _moment(axes: Axes, place: int, name: str, side: str) -> None:
    axes.axvline(place, color=LIGHT["muted"], linewidth=1)
    _name(axes, place, name, side)


def _name(axes: Axes, place: float, name: str, side: str) -> None:
    gap = {"left": 3, "center": 0, "right": -3}[side]
    axes.annotate(
        name, (place, TOP), xytext=(gap, 0), textcoords="offset points", ha=side, fontsize=10.5, annotation_clip=False
    )


def _label_stretches(axes: Axes, saved: Mapping[str, Any]) -> None:
    """The accuracy of each stretch with its interval, beside its line."""
    summary, found = saved["summary"], saved["accuracies"]
    end, turned, swap = len(summary["moments"]), summary["turned_at"], summary["swap_at"]
    _under(axes, found.get("before"), turned / 2)
    _under(axes, found.get("changed"), (turned + (saved["decay_at"] or swap or end)) / 2)
    heights = _apart([found[name]["value"] for name in ENDS if name in found])
    for (words, ink, weight), estimate, height in zip(
        ENDS.values(), (found[name] for name in ENDS if name in found), heights, strict=False
    ):
        axes.annotate(
            f"{words}\n{_percent(estimate)}",
            (end, height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=10.5,
            fontweight=weight,
            color=ink,
            annotation_clip=False,
        )


def _apart(heights: Sequence[float]) -> list[float]:
    """The same heights, moved apart if two labels of two lines would touch."""
    if len(heights) < 2 or abs(heights[0] - heights[1]) >= LABEL:
        return list(heights)
    middle, up = sum(heights) / 2, 1 if heights[0] >= heights[1] else -1
    return [middle + up * LABEL / 2, middle - up * LABEL / 2]


def _under(axes: Axes, found: Mapping[str, Any] | None, place: float) -> None:
    if found is not None:
        height = found["value"] - 0.24 if found["value"] > 0.35 else found["value"] + 0.26
        axes.annotate(_percent(found).replace(" (", "\n("), (place, height), ha="center", va="center", fontsize=10.5)


def _percent(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.0%} ({100 * found['low']:.0f} to {100 * found['high']:.0f})"


def _description(saved: Mapping[str, Any]) -> str:
    return f"Accuracy over {saved['requests']} requests. {saved['summary']['verdict']}"


def as_svg(figure: Figure, description: str) -> str:
    """A picture that stands alone: the house's colours for light and dark, on a ground of its own."""
    light, dark = ("; ".join(f"--{name}: {value}" for name, value in each.items()) for each in (LIGHT, DARK))
    style = f"<style>svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    ground = '<rect width="100%" height="100%" rx="6" fill="var(--paper)"/>'
    head, opening, rest = svg(figure, description).partition(">\n")
    return f"{head}{opening}{style}\n{ground}\n{rest}"


if __name__ == "__main__":
    raise SystemExit(main())

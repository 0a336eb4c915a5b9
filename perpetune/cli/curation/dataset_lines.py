"""What `perpetune data diff` and `list` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpetune.curation.rows.changes import Changes, RowChange
from perpetune.loop.data_versions import DataVersionEntry

_MOST = 8
"""Labels and sources of a kind of change; the others are counted."""


def show_changes(before: str, after: str, found: Sequence[Changes], console: Console) -> None:
    """One paragraph a kind of change: how many rows, by label and by source, and examples."""
    console.print(f"data {before[:8]} → {after[:8]}", style="bold", markup=False)
    changed = [each for each in found if each.rows]
    if not changed:
        console.print("the same rows in the same splits")
    for each in changed:
        console.print(f"\n{each.rows:,} {each.kind}", style="bold", markup=False)
        for name, counts in (
            ("by label" if each.kind != "changed split" else "by split", each.labels),
            ("by source", each.sources),
        ):
            if counts:
                console.print(f"  {name}: {_listed(counts)}", markup=False, soft_wrap=True)
        for row in each.examples:
            console.print(_example(row), soft_wrap=True)


def show_versions(found: Sequence[DataVersionEntry], console: Console) -> None:
    """A table of the versions, newest first."""
    if not found:
        console.print("no data has been curated yet: run `perpetune refresh`")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("data version", "models", ""):
        table.add_column(name)
    for each in found:
        erased = f"{each.erased:,} texts erased since" if each.erased else ""
        table.add_row(
            each.version, ", ".join(each.models), ", ".join(filter(None, ("now" if each.now else "", erased)))
        )
    console.print(table)


def _listed(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:_MOST])
    return shown if len(counts) <= _MOST else f"{shown} and {len(counts) - _MOST} more"


def _example(row: RowChange) -> Text:
    line = Text(f"  {row.source} · {row.id}", style="dim")
    for mark, text, style in (("-", row.before, "red"), ("+", row.after, "green")):
        if text is not None:
            line.append(f"\n    {mark} {' '.join(text.split())}", style=style)
    return line

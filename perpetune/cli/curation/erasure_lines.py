"""What `perpetune data remove` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from perpetune.erasure.erase import Erasure


def show_erasure(done: Erasure, console: Console) -> None:
    """A table of what was removed and where; then which models learned from it, and what to do."""
    rows = f"{done.rows:,} row{'' if done.rows == 1 else 's'}" if done.rows else "texts in no row"
    title = f"{rows} would be erased" if done.dry_run else f"{rows} erased"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("where")
    table.add_column("rows or texts", justify="right")
    table.add_column("in", justify="right")
    for each in done.removed:
        table.add_row(each.place, f"{each.rows:,}", f"{each.parts:,} {each.unit}")
    console.print(table)
    for line in _lines(done):
        console.print(line, markup=False, soft_wrap=True)


def _lines(done: Erasure) -> list[str]:
    lines = []
    if done.versions:
        lines.append(f"{len(done.versions):,} stored folders of older data keep their names and come back without them")
    learned = [each for each in done.trained if each.learned]
    for each in done.trained:
        names = f" ({', '.join(each.aliases)})" if each.aliases else ""
        what = "was trained on them" if each.learned else "was evaluated on them"
        lines.append(f"version {each.version}{names} {what}: data {each.data_version[:8]}")
    if learned:
        lines.append("weights can remember what they were trained on: run `perpetune refresh` for a version that")
        lines.append("never saw the rows, then delete the versions above in MLflow")
    if done.elsewhere:
        lines.append(f"your own files still hold them, delete them there: {', '.join(done.elsewhere)}")
    lines += done.notes
    if not done.dry_run:
        lines.append("commit erased.json; other clones, backups and git's history are not perpetune's to change")
    return lines

"""Tables of label requests and of imported labels."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpetune.curation.text import shortened
from perpetune.prediction_log.labels.file import ImportedLabels
from perpetune.prediction_log.labels.requests import LabelRequest

SHOWN_FAULTS = 10


def show_requests(wanted: Sequence[LabelRequest], console: Console) -> None:
    """Print the open label requests as a table."""
    if not wanted:
        console.print("no label requests are open", markup=False)
        return
    table = Table("request", "input", "answer", "confidence", "why", title=f"{len(wanted)} label requests")
    for each in wanted:
        confidence = "" if each.confidence is None else f"{each.confidence:.2f}"
        table.add_row(
            Text(each.request_id), Text(shortened(each.input)), Text(shortened(each.answer)), confidence, _why(each)
        )
    console.print(table)


def _why(each: LabelRequest) -> str:
    return f"{each.why}, urgent" if each.urgent else each.why


def show_imported(brought: ImportedLabels, console: Console) -> None:
    """Print how many labels were imported, and the rejected rows by line."""
    console.print(f"{brought.labels} labels imported, {brought.empty} rows without a label", markup=False)
    if brought.rejected:
        console.print(f"{len(brought.rejected)} rows rejected; fix them and import the file again:", markup=False)
    for row in brought.rejected[:SHOWN_FAULTS]:
        console.print(f"  {row}", markup=False, soft_wrap=True)

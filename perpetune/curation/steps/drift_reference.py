"""Step 5: the reference rows of drift detection."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import nsmallest
from pathlib import Path

from perpetune.curation.running.layout import REFERENCE, SPLITS
from perpetune.curation.text import fingerprint
from perpetune.params import ReferenceParams
from perpetune.records import Example, StoredRecords, write_jsonl


def reference(recent: Collection[Example], frozen: Iterable[Example], params: ReferenceParams) -> list[Example]:
    """Up to `rows` examples of the recent holdout, filled up from the frozen one if there are fewer than `min_recent`.

    Recent rows are preferred, so that changes since the first data was collected do not count as drift. Only holdout
    rows are used, so that the champion's answers are those on unseen input. The sample takes the smallest hashes: it
    is uniform and hardly changes when rows are added.
    """
    chosen = _sample(recent, params.rows)
    if len(recent) >= params.min_recent:
        return chosen
    return chosen + _sample(frozen, params.rows - len(chosen))


def _sample(examples: Iterable[Example], rows: int) -> list[Example]:
    return nsmallest(rows, examples, key=lambda row: fingerprint("reference", row.source, row.id))


def run(params: ReferenceParams, workspace: Path) -> str:
    """Write `data/reference/reference.jsonl`."""
    recent, frozen = (StoredRecords(workspace / SPLITS / f"{name}.jsonl", Example) for name in ("recent", "frozen"))
    count = write_jsonl(workspace / REFERENCE / "reference.jsonl", reference(recent, frozen, params))
    return f"{count:,} reference rows"

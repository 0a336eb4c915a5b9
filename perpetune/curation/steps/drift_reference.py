"""Step 5: the rows that drift is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perpetune.curation.layout import REFERENCE, SPLITS
from perpetune.curation.text import fingerprint
from perpetune.params import ReferenceParams
from perpetune.records import Example, read_jsonl, write_jsonl


def reference(recent: Sequence[Example], frozen: Sequence[Example], params: ReferenceParams) -> list[Example]:
    """Up to `rows` examples of the recent holdout; the frozen one fills up where those are fewer than `min_recent`.

    Traffic that has changed since the first data was collected is not to be taken for decay: where there is
    enough of the newer kind, it is the measure. None was trained on, so that the champion's answers on them are what it gives on unseen input.
    Where there are too many, those whose hash is smallest are taken: a uniform sample that hardly
    changes when rows are added.
    """
    chosen = _sample(recent, params.rows)
    if len(recent) >= params.min_recent:
        return chosen
    return chosen + _sample(frozen, params.rows - len(chosen))


def _sample(examples: Sequence[Example], rows: int) -> list[Example]:
    return sorted(examples, key=lambda row: fingerprint("reference", row.source, row.id))[:rows]


def run(params: ReferenceParams, workspace: Path) -> str:
    """Write `data/reference/reference.jsonl`."""
    recent = read_jsonl(workspace / SPLITS / "recent.jsonl", Example)
    frozen = read_jsonl(workspace / SPLITS / "frozen.jsonl", Example)
    count = write_jsonl(workspace / REFERENCE / "reference.jsonl", reference(recent, frozen, params))
    return f"{count:,} rows of reference"

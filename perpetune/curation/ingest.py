"""Ingesting a file of examples into the inbox of a workspace."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.reader import ReadResult, read_examples
from perpetune.errors import PerpetuneError
from perpetune.records import read_jsonl, write_jsonl


@dataclass(frozen=True)
class Ingestion:
    """The result of an ingestion: the number of examples, and the rejected rows.

    `repeated` is true if the inbox already has this content, and nothing was written.
    """

    source: str
    path: Path
    examples: int
    rejected: tuple[Rejected, ...]
    rejected_path: Path | None
    repeated: bool


def ingest(path: Path, inbox: Path) -> Ingestion:
    """Write the examples of a file to the inbox, named after the file and the hash of its content.

    Rejected rows are written to `inbox/rejected/` with their reasons. Raises PerpetuneError, and writes nothing, if the
    file cannot be read or has no valid example.
    """
    source = source_name(path)
    result = read_examples(path, source)
    if not result.examples:
        raise PerpetuneError(_no_examples(result), where=str(path), do="fix these rows and ingest the file again")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    earlier = next(iter(sorted(inbox.glob(f"*-{digest}.jsonl"))), None)
    target = earlier or inbox / f"{source}-{digest}.jsonl"
    rejected_path = rejected_file(target) if result.rejected else None
    if not earlier:
        # The examples last: if they exist, the ingestion was complete.
        if rejected_path:
            write_jsonl(rejected_path, result.rejected)
        write_jsonl(target, result.examples)
    return Ingestion(source, target, len(result.examples), result.rejected, rejected_path, repeated=bool(earlier))


def rejected_file(examples: Path) -> Path:
    """The path of an inbox file's rejected rows."""
    return examples.parent / "rejected" / f"{examples.stem}.rejected.jsonl"


def read_rejected(examples: Path) -> list[Rejected]:
    """The rejected rows of an inbox file."""
    path = rejected_file(examples)
    return read_jsonl(path, Rejected) if path.is_file() else []


def source_name(path: Path) -> str:
    """The file's name as a source; `traffic` is reserved for labelled production traffic."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-.")[:60] or "examples"
    return "traffic-file" if name == "traffic" else name


def _no_examples(result: ReadResult) -> str:
    counts = Counter((row.field, row.reason) for row in result.rejected)
    reasons = [f"{field or 'row'}: {reason} ({count:,})" for (field, reason), count in counts.most_common(3)]
    return f"none of its {len(result.rejected):,} rows is a valid example: {'; '.join(reasons)}"

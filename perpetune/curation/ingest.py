"""Somebody's file of examples, brought into the inbox of a workspace."""

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
    """What became of a file: how many examples it brought and which rows were refused.

    `repeated` says that the inbox held this very content already, and nothing was written.
    """

    source: str
    path: Path
    examples: int
    rejected: tuple[Rejected, ...]
    rejected_path: Path | None
    repeated: bool


def ingest(path: Path, inbox: Path) -> Ingestion:
    """Read `path` and write its examples to the inbox, named after the file and the hash of its content.

    Refused rows go to `inbox/rejected/` with their reasons. Raises PerpetuneError, and writes nothing,
    where the file cannot be read or holds no example.
    """
    source = source_name(path)
    reading = read_examples(path, source)
    if not reading.examples:
        raise PerpetuneError(_no_examples(reading), where=str(path), do="mend these rows and ingest the file again")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    earlier = next(iter(sorted(inbox.glob(f"*-{digest}.jsonl"))), None)
    target = earlier or inbox / f"{source}-{digest}.jsonl"
    rejected_path = rejected_file(target) if reading.rejected else None
    if not earlier:
        # The examples last: where they are, the file was ingested whole.
        if rejected_path:
            write_jsonl(rejected_path, reading.rejected)
        write_jsonl(target, reading.examples)
    return Ingestion(source, target, len(reading.examples), reading.rejected, rejected_path, repeated=bool(earlier))


def rejected_file(examples: Path) -> Path:
    """Where the refused rows of an inbox file lie."""
    return examples.parent / "rejected" / f"{examples.stem}.rejected.jsonl"


def read_rejected(examples: Path) -> list[Rejected]:
    """The refused rows of an inbox file."""
    path = rejected_file(examples)
    return read_jsonl(path, Rejected) if path.is_file() else []


def source_name(path: Path) -> str:
    """The file's name as a source: `traffic` is kept for what production labelled."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-.")[:60] or "examples"
    return "traffic-file" if name == "traffic" else name


def _no_examples(reading: ReadResult) -> str:
    counts = Counter((row.field, row.reason) for row in reading.rejected)
    reasons = [f"{field or 'row'}: {reason} ({count:,})" for (field, reason), count in counts.most_common(3)]
    return f"none of its {len(reading.rejected):,} rows is an example: {'; '.join(reasons)}"

"""Step 1: bring the examples of all sources together, and the rows that are none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from perpetune.curation.ingest import read_rejected, source_name
from perpetune.curation.layout import INBOX, RAW
from perpetune.curation.layout import TRAFFIC as TRAFFIC_FILE
from perpetune.curation.quarantine import in_order
from perpetune.curation.readers.reader import SUFFIXES, ReadResult, read_examples
from perpetune.curation.readers.reviews import find_wheel, product_examples
from perpetune.curation.sources import TRAFFIC, is_traffic
from perpetune.errors import PerpetuneError
from perpetune.params import FetchParams, TaskParams
from perpetune.records import to_json, write_jsonl
from perpetune.settings import Settings

REVIEW_LABELS = ("positive", "negative")


def fetch(sources: Iterable[str], workspace: Path, assets: Path) -> ReadResult:
    """Read every source, rows in the one order of the pipeline.

    A source is `reviews` (product reviews from the wheel in `assets`), `inbox` (what was ingested),
    `traffic` (what was labelled in production), or a file or folder. Raises PerpetuneError where one
    cannot be read, or where all of them together hold no example.
    """
    sources = tuple(sources)
    reading = _together(_read(source, workspace, assets) for source in sources)
    examples = in_order(reading.examples)
    rejected = sorted(reading.rejected, key=lambda row: (row.file, row.line, row.reason))
    if not examples:
        raise PerpetuneError(
            f"there is not one example in fetch.sources ({', '.join(sources)})"
            + (f"; {len(rejected):,} rows were refused, the first: {rejected[0]}" if rejected else ""),
            do="bring some: perpetune ingest FILE, and list `inbox` in fetch.sources of params.yaml",
        )
    return ReadResult(tuple(examples), tuple(rejected))


def _read(source: str, workspace: Path, assets: Path) -> ReadResult:
    if source == "reviews":
        return ReadResult(tuple(product_examples(find_wheel(assets), REVIEW_LABELS)), ())
    if source == TRAFFIC:
        return _traffic(workspace / TRAFFIC_FILE)
    if source == "inbox":
        return _inbox(workspace / INBOX)
    return _path(workspace / source)


def _traffic(path: Path) -> ReadResult:
    if not path.is_file() or not path.stat().st_size:
        return ReadResult((), ())
    reading = read_examples(path, TRAFFIC)
    rows = (row if is_traffic(row) else row.model_copy(update={"source": TRAFFIC}) for row in reading.examples)
    return ReadResult(tuple(rows), reading.rejected)


def _inbox(folder: Path) -> ReadResult:
    files = sorted(folder.glob("*.jsonl"))
    together = _together(read_examples(file, source_name(file)) for file in files)
    refused_before = [row for file in files for row in read_rejected(file)]
    return ReadResult(together.examples, (*together.rejected, *refused_before))


def _path(path: Path) -> ReadResult:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise PerpetuneError(f"this folder holds no {', '.join(SUFFIXES)} file", where=str(path))
        return _together(read_examples(file, source_name(file)) for file in files)
    if not path.exists():
        raise PerpetuneError(
            "there is no such file or folder",
            where=str(path),
            do="mend fetch.sources in params.yaml: reviews, inbox, traffic, or the path of a file or folder",
        )
    return read_examples(path, source_name(path))


def _together(readings: Iterable[ReadResult]) -> ReadResult:
    all_of_them = tuple(readings)
    return ReadResult(
        examples=tuple(row for reading in all_of_them for row in reading.examples),
        rejected=tuple(row for reading in all_of_them for row in reading.rejected),
    )


def run(params: FetchParams, task: TaskParams, workspace: Path) -> str:
    """Write `data/raw/`: examples, refused rows, counts, the outputs' schema, and the digest of this very code."""
    reading = fetch(params.sources, workspace, Settings().assets or workspace / "assets")
    raw = workspace / RAW
    write_jsonl(raw / "examples.jsonl", reading.examples)
    write_jsonl(raw / "rejected.jsonl", reading.rejected)
    counts = {
        "examples": len(reading.examples),
        "rejected": len(reading.rejected),
        "sources": dict(sorted(Counter(row.source for row in reading.examples).items())),
    }
    (raw / "counts.json").write_text(to_json(counts), encoding="utf-8")
    # `clean` runs again where it has changed, be it in a file that DVC does not know.
    (raw / "output_schema.json").write_text(to_json(task.output_schema), encoding="utf-8")
    # All later steps depend on this file, so that they run again when curation itself has changed.
    (raw / "code.sha256").write_text(_code_digest() + "\n", encoding="utf-8")
    return f"{len(reading.examples):,} examples, {len(reading.rejected):,} rows refused"


def _code_digest() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()

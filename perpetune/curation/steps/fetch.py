"""Step 1: read the examples of all sources."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from perpetune.curation.erased import Tombstones, load_tombstones
from perpetune.curation.inbox.files import inbox_files, read_rejected, source_name
from perpetune.curation.inbox.versions import current_rows, inbox_rows
from perpetune.curation.quarantine import Quarantined, Rejected, in_order, quarantine_in_order
from perpetune.curation.readers.addresses.local import files_below
from perpetune.curation.readers.reader import ReadResult, read_examples
from perpetune.curation.readers.reviews import find_wheel, product_examples
from perpetune.curation.rows.sources import TRAFFIC, is_traffic
from perpetune.curation.rows.versions import newest_versions
from perpetune.curation.running.layout import INBOX, RAW
from perpetune.curation.running.layout import TRAFFIC as TRAFFIC_FILE
from perpetune.errors import NoExamples, PerpetuneError
from perpetune.params import FetchParams, TaskParams
from perpetune.records import Example, to_json, write_jsonl
from perpetune.settings import Settings

_CODE = ("curation", "redacting")
_LIBRARIES = ("ftfy", "lingua-language-detector", "phonenumbers", "presidio-analyzer", "rensa")

REVIEW_LABELS = ("positive", "negative")


@dataclass(frozen=True)
class Fetched:
    """The examples of all sources, rejected rows, and older versions of rows that were ingested again.

    `erased` is the number of rows that were left out because they were erased.
    """

    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]
    superseded: tuple[Quarantined, ...]
    erased: int = 0


def fetch(sources: Iterable[str], workspace: Path, assets: Path) -> Fetched:
    """Read every source, with rows in canonical order.

    A source is `reviews` (product reviews from the wheel in `assets`), `inbox` (ingested files), `traffic` (labelled
    production traffic), or a file or folder. Raises PerpetuneError if one cannot be read, or there is no example in
    all of them.
    """
    sources = tuple(sources)
    inbox, replaced = _inbox(workspace / INBOX) if "inbox" in sources else ([], [])
    results = [
        read for source in sources for read in (inbox if source == "inbox" else [_read(source, workspace, assets)])
    ]
    tombstones = load_tombstones(workspace)
    before = sum(len(each.examples) for each in results)
    results = [_without_erased(each, tombstones) for each in results]
    erased = before - sum(len(each.examples) for each in results)
    result = _merged(results)
    kept, older = newest_versions([each.examples for each in results])
    superseded = [*older, *(row for row in replaced if not tombstones.of(row.example))]
    examples = in_order(kept)
    rejected = sorted(result.rejected, key=lambda row: (row.file, row.line, row.reason))
    if not examples:
        raise (PerpetuneError if rejected else NoExamples)(
            f"there are no examples in fetch.sources ({', '.join(sources)})"
            + (f"; {len(rejected):,} rows were rejected, the first: {rejected[0]}" if rejected else ""),
            do="add some with `perpetune ingest FILE`, and list `inbox` in fetch.sources of params.yaml",
        )
    return Fetched(tuple(examples), tuple(rejected), tuple(quarantine_in_order(superseded)), erased)


def _without_erased(result: ReadResult, tombstones: Tombstones) -> ReadResult:
    kept = tuple(row for row in result.examples if tombstones.of(row) is None)
    return ReadResult(kept, result.rejected)


def _read(source: str, workspace: Path, assets: Path) -> ReadResult:
    if source == "reviews":
        return ReadResult(tuple(product_examples(find_wheel(assets), REVIEW_LABELS)), ())
    return _traffic(workspace / TRAFFIC_FILE) if source == TRAFFIC else _path(workspace / source)


def _traffic(path: Path) -> ReadResult:
    if not path.is_file() or not path.stat().st_size:
        return ReadResult((), ())
    result = read_examples(path, TRAFFIC)
    rows = (row if is_traffic(row) else row.model_copy(update={"source": TRAFFIC}) for row in result.examples)
    return ReadResult(tuple(rows), result.rejected)


def _inbox(folder: Path) -> tuple[list[ReadResult], list[Quarantined]]:
    """The files in the order of their ingestion, without rows that a newer version of a file replaces; and those rows.

    What was rejected at ingestion counts as rejected here too.
    """
    files = inbox_files(folder)
    results = [read_examples(file, source_name(file)) for file in files]
    current, replaced = current_rows(inbox_rows(files, [result.examples for result in results]))
    read = zip(files, results, current, strict=True)
    return [ReadResult(rows, (*result.rejected, *read_rejected(file))) for file, result, rows in read], replaced


def _path(path: Path) -> ReadResult:
    if path.is_dir():
        return _merged(read_examples(file, source_name(file)) for file in files_below(path))
    if not path.exists():
        raise PerpetuneError(
            "the file or folder does not exist",
            where=str(path),
            do="correct fetch.sources in params.yaml: reviews, inbox, traffic, or the path of a file or folder",
        )
    return read_examples(path, source_name(path))


def _merged(results: Iterable[ReadResult]) -> ReadResult:
    results = tuple(results)
    return ReadResult(
        examples=tuple(row for result in results for row in result.examples),
        rejected=tuple(row for result in results for row in result.rejected),
    )


def run(params: FetchParams, task: TaskParams, workspace: Path) -> str:
    """Write `data/raw/`: examples, rejected rows, counts, the output schema, and the digest of the curation code."""
    result = fetch(params.sources, workspace, Settings().assets or workspace / "assets")
    raw = workspace / RAW
    write_jsonl(raw / "examples.jsonl", result.examples)
    write_jsonl(raw / "rejected.jsonl", result.rejected)
    write_jsonl(raw / "superseded.jsonl", result.superseded)
    counts = {
        "examples": len(result.examples),
        "rejected": len(result.rejected),
        "superseded": len(result.superseded),
        **({"erased": result.erased} if result.erased else {}),
        "sources": dict(sorted(Counter(row.source for row in result.examples).items())),
    }
    (raw / "counts.json").write_text(to_json(counts), encoding="utf-8")
    # So that DVC runs `clean` again if the schema has changed in its own file.
    (raw / "output_schema.json").write_text(to_json(task.output_schema), encoding="utf-8")
    # All later steps depend on this file, so that they run again if the curation code has changed.
    (raw / "code.sha256").write_text(_code_digest() + "\n", encoding="utf-8")
    return (
        f"{len(result.examples):,} examples, {len(result.rejected):,} rows rejected, "
        f"{len(result.superseded):,} older versions of a row quarantined"
        + (f", {result.erased:,} rows left out because they were erased" if result.erased else "")
    )


def _code_digest() -> str:
    """Of the code of the steps, and the versions of the libraries that decide what they do to a text."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[2]
    files = (file for name in _CODE for file in (package / name).rglob("*"))
    for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    for name in _LIBRARIES:
        digest.update(f"{name} {_installed_version(name)}".encode())
    return digest.hexdigest()


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""Ingesting a file of examples into the inbox of a workspace."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

from perpetune.curation.erased import load_tombstones
from perpetune.curation.inbox.files import (
    Origin,
    given_source,
    inbox_files,
    now,
    origin_file,
    preferences_file,
    read_origin,
)
from perpetune.curation.inbox.files import read_rejected as read_rejected
from perpetune.curation.inbox.files import rejected_file as rejected_file
from perpetune.curation.inbox.files import source_name as source_name
from perpetune.curation.inbox.spool import Summary, preference_lines, spool, spooled
from perpetune.curation.inbox.store import locked, plain_errors, write_lines
from perpetune.curation.inbox.versions import (
    family,
    is_newer_version,
    is_superseded,
    replaced_by,
    shares_ids,
    sketch,
    sketch_of,
)
from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.addresses.address import NamedFile
from perpetune.curation.readers.addresses.compressed import opened_as_it_is
from perpetune.curation.readers.identity import has_content_id
from perpetune.curation.readers.options import ReadOptions
from perpetune.errors import PerpetuneError
from perpetune.records import Example

_DEFAULT = ReadOptions()
_MORE_SPACE = "let TMPDIR name a folder with more space"


@dataclass(frozen=True)
class Ingestion:
    """The result of an ingestion: the number of examples, and the rejected rows.

    `repeated` is true if the inbox already has this content, and nothing was written. `replaced` is the number of rows
    of earlier files of which this one has a newer version.
    """

    source: str
    path: Path
    examples: int
    rejected: tuple[Rejected, ...]
    rejected_path: Path | None
    repeated: bool
    schemas: dict[str, int]
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    replaced: int = 0
    preferences: int = 0


def ingest(
    path: Path | NamedFile, inbox: Path, options: ReadOptions = _DEFAULT, source: str | None = None
) -> Ingestion:
    """Write the examples of a file to the inbox, named after the file and the hash of its content.

    Rejected rows are written to `inbox/rejected/` with their reasons, preferences to `inbox/preferences/`. The newer
    version of a row wins: see `newest_versions`. Ids that an earlier file of the same name uses for other rows are
    qualified by the file. A row that was erased is rejected. Raises PerpetuneError, and writes nothing, if the file cannot be read or has no valid example.
    """
    file = NamedFile(path, str(path)) if isinstance(path, Path) else path
    with plain_errors(inbox), tempfile.TemporaryDirectory(prefix="perpetune-") as temporary:
        digest = _digest(file, options, source)
        target = _known(inbox, digest) or inbox / f"{_source(file, source)}-{digest}.jsonl"
        folder = Path(temporary)
        erased = load_tombstones(inbox.absolute().parents[1])
        with plain_errors(folder, _MORE_SPACE):
            summary = spool(file.path, _name(target), options, folder, Path(file.address), erased)
        if not summary.examples:
            if not summary.rejected:
                raise PerpetuneError("the file has no rows", where=file.address, do="add at least one example")
            raise PerpetuneError(
                _no_examples(summary), where=file.address, do="fix these rows and ingest the file again"
            )
        with locked(inbox):
            return _publish(file, target, summary, folder)


def _source(file: NamedFile, given: str | None) -> str:
    return source_name(file.path) if given is None else given_source(given)


def _known(inbox: Path, digest: str) -> Path | None:
    """The inbox file that has this content already."""
    return next(iter(sorted(inbox.glob(f"*-{digest}.jsonl"))), None)


def _publish(file: NamedFile, target: Path, summary: Summary, folder: Path) -> Ingestion:
    origin, notes = _placed(Origin(file=file.address, ingested=now()), target, folder, summary.unrelated)
    repeated = target.exists() and _holds(target, _lines(folder, summary, origin))
    if not repeated:
        _write(target, origin, summary, folder)
    elif is_superseded(target):
        repeated, notes = (
            False,
            (*notes, "it was ingested before, and a newer version since: its rows are the newest again"),
        )
        write_lines(origin_file(target), [origin.model_dump_json(indent=2)])
    return Ingestion(
        _name(target),
        target,
        summary.examples,
        summary.rejected,
        rejected_file(target) if summary.rejected else None,
        repeated,
        summary.schemas,
        summary.used,
        summary.ignored,
        (*summary.notes, *notes),
        0 if repeated else replaced_by(target),
        summary.preferences,
    )


def _placed(origin: Origin, target: Path, folder: Path, unrelated: frozenset[str]) -> tuple[Origin, tuple[str, ...]]:
    """The origin, with what the file is a newer version of and the prefix of its ids; and what to tell the user.

    A file that is in the inbox already keeps its prefix.
    """
    before = read_origin(target)
    if before:
        origin = origin.model_copy(update={"prefix": before.prefix})
    earlier = [other for other in inbox_files(target.parent) if other != target and family(other) == family(target)]
    if not earlier:
        return origin, ()
    new = sketch(spooled(folder, unrelated))
    older = [other for other in earlier if is_newer_version(new, sketch_of(other), same_name=_same_name(other, target))]
    if older:
        prefix = origin.prefix if target.exists() else _prefix_of(older[-1], target)
        return origin.model_copy(update={"newer_than": tuple(other.name for other in older), "prefix": prefix}), ()
    if target.exists() or not any(_same_name(other, target) and shares_ids(new, sketch_of(other)) for other in earlier):
        return origin, ()
    note = f"its ids name other rows in an earlier file of this name: they now begin with `{target.stem}:`"
    return origin.model_copy(update={"prefix": target.stem}), (note,)


def _prefix_of(older: Path, target: Path) -> str:
    origin = read_origin(older)
    return origin.prefix if origin and _same_name(older, target) else ""


def _same_name(one: Path, other: Path) -> bool:
    return _name(one) == _name(other)


def _name(file: Path) -> str:
    """The name of an inbox file without its hash."""
    return file.stem.rpartition("-")[0]


def _lines(folder: Path, summary: Summary, origin: Origin) -> Iterator[str]:
    for row in spooled(folder, summary.unrelated):
        qualified = origin.prefix and not has_content_id(row)
        kept = row.model_copy(update={"id": f"{origin.prefix}:{row.id}"}) if qualified else row
        yield kept.model_dump_json(exclude_defaults=True)


def _holds(target: Path, lines: Iterator[str]) -> bool:
    """Whether the inbox file has just these lines."""
    with target.open(encoding="utf-8") as held:
        return all(one == (other and other + "\n") for one, other in zip_longest(held, lines, fillvalue=""))


def _write(target: Path, origin: Origin, summary: Summary, folder: Path) -> None:
    """Write the examples last: if they exist, the ingestion was complete."""
    if summary.rejected:
        write_lines(rejected_file(target), (row.model_dump_json(exclude_defaults=True) for row in summary.rejected))
    if summary.preferences:
        write_lines(preferences_file(target), preference_lines(folder))
    if origin.prefix or origin.newer_than:
        write_lines(origin_file(target), [origin.model_dump_json(indent=2)])
    write_lines(target, _lines(folder, summary, origin))


def _digest(file: NamedFile, options: ReadOptions, source: str | None) -> str:
    """The hash of the content, and of what the user said about it. Raises PerpetuneError if the file cannot be read."""
    with opened_as_it_is(file.path) as data:
        digest = hashlib.file_digest(data, "sha256")
    if options != _DEFAULT or source:
        digest.update(repr((options, source)).encode())
    return digest.hexdigest()[:12]


def _no_examples(summary: Summary) -> str:
    counts = Counter((row.field, row.reason) for row in summary.rejected)
    reasons = [f"{field or 'row'}: {reason} ({count:,})" for (field, reason), count in counts.most_common(3)]
    return f"none of its {len(summary.rejected):,} rows is a valid example: {'; '.join(reasons)}"


@dataclass(frozen=True)
class Preview:
    """What an ingestion would bring, and its first examples."""

    summary: Summary
    first: tuple[Example, ...]


def preview(
    path: Path | NamedFile, options: ReadOptions = _DEFAULT, source: str | None = None, limit: int = 10
) -> Preview:
    """Read a file as `ingest` does, and write nothing. Raises PerpetuneError if it cannot be read."""
    file = NamedFile(path, str(path)) if isinstance(path, Path) else path
    with tempfile.TemporaryDirectory(prefix="perpetune-") as temporary, plain_errors(Path(temporary), _MORE_SPACE):
        folder = Path(temporary)
        summary = spool(file.path, _source(file, source), options, folder, shown=Path(file.address))
        return Preview(summary, tuple(islice(spooled(folder, summary.unrelated), limit)))

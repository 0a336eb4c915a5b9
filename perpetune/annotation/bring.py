"""Bringing annotations home: labels of requests as feedback, those of rows as newer versions in the inbox."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from perpetune.annotation.decide import Decided, Undecided
from perpetune.annotation.records import Annotation, Subject
from perpetune.curation.inbox.files import Origin, inbox_files, now, origin_file, source_name
from perpetune.curation.inbox.store import locked, plain_errors, write_lines
from perpetune.curation.readers.reader import read_examples
from perpetune.curation.readers.unlabelled import labelled_as
from perpetune.curation.running.layout import INBOX
from perpetune.curation.text import normalised
from perpetune.prediction_log.redaction import Redactor
from perpetune.prediction_log.writes import UnknownRequest, add_feedback
from perpetune.records import Example, Feedback, read_jsonl

RECORD = Path("data/annotations/annotations.jsonl")
NAME = "annotations"


@dataclass(frozen=True)
class Brought:
    """What came home: labels stored as feedback, rows corrected, new rows; labels that only confirm; and what could not."""

    feedback: int
    corrected: int
    added: int
    confirmed: int
    undecided: tuple[Undecided, ...]
    file: Path | None


@dataclass(frozen=True)
class Recorded:
    """All annotations that ever came home, and the new ones among them."""

    every: tuple[Annotation, ...]
    new: tuple[Annotation, ...]


def record(annotations: Iterable[Annotation], workspace: Path) -> Recorded:
    """Keep who said what and when, besides what is kept already."""
    path = workspace / RECORD
    known = read_jsonl(path, Annotation) if path.is_file() else []
    lines = {each.model_dump_json(exclude_defaults=True): each for each in known}
    new = {line: each for each in annotations if (line := each.model_dump_json(exclude_defaults=True)) not in lines}
    if new:
        with plain_errors(path):
            write_lines(path, [*lines, *new])
    return Recorded((*known, *new.values()), tuple(new.values()))


def bring(
    decided: Sequence[Decided],
    undecided: Sequence[Undecided],
    new: Sequence[Annotation],
    workspace: Path,
    log: Engine,
    redactor: Redactor | None,
) -> Brought:
    """Bring decided labels home, of all annotations ever. Those without a `new` annotation came before, and change nothing.

    Raises PerpetuneError if the inbox cannot be written.
    """
    fresh = {each.subject.key for each in new}
    asked = [each for each in decided if each.subject.kind == "request" and each.subject.key in fresh]
    stored, unknown = _feedback(asked, log, redactor)
    rows = [each for each in decided if each.subject.kind != "request"]
    with plain_errors(workspace / INBOX), locked(workspace / INBOX):
        versions = _Versions(workspace / INBOX, rows, fresh)
        file = versions.write() if any(each.subject.key in fresh for each in rows) else None
    return Brought(
        stored,
        versions.corrected,
        versions.added,
        versions.confirmed,
        (*(each for each in undecided if each.subject.key in fresh), *unknown, *versions.unknown),
        file,
    )


def _feedback(decided: Sequence[Decided], log: Engine, redactor: Redactor | None) -> tuple[int, list[Undecided]]:
    stored, unknown = 0, []
    for each in decided:
        given = Feedback(request_id=each.subject.id, time=each.newest.time or datetime.now(UTC), label=each.label)
        try:
            add_feedback(log, redactor.row(given) if redactor else given)
            stored += 1
        except UnknownRequest as fault:
            unknown.append(Undecided(each.subject, fault.what))
    return stored, unknown


class _Versions:
    """Newer versions of rows of the inbox, and rows that are new: of all decisions ever, so that one file has them all.

    Only `fresh` subjects are counted.
    """

    def __init__(self, inbox: Path, decided: Sequence[Decided], fresh: set[str]) -> None:
        self._inbox = inbox
        self._fresh = fresh
        self._files = [file for file in inbox_files(inbox) if not _is_ours(file)]
        self._rows = [(file, row) for file in self._files for row in read_examples(file, source_name(file)).examples]
        self._lines: dict[str, str] = {}
        self._older: set[str] = set()
        self.corrected = self.added = self.confirmed = 0
        self.unknown: list[Undecided] = []
        for each in decided:
            self._add(each)

    def write(self) -> Path | None:
        """The file with all versions, in place of those of earlier pulls; None if there is nothing to write."""
        earlier = [file for file in inbox_files(self._inbox) if _is_ours(file)]
        if not self._lines:
            return None
        content = "".join(self._lines.values())
        target = self._inbox / f"{NAME}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.jsonl"
        origin = Origin(file="perpetune annotate pull", ingested=now(), newer_than=tuple(sorted(self._older)))
        write_lines(origin_file(target), [origin.model_dump_json(indent=2)])
        write_lines(target, self._lines.values())
        for file in earlier:
            if file != target:
                file.unlink(missing_ok=True)
                origin_file(file).unlink(missing_ok=True)
        return target

    def _add(self, decided: Decided) -> None:
        subject, label = decided.subject, decided.label
        counted = int(subject.key in self._fresh)
        if subject.kind == "new" and subject.row is not None:
            self.added += counted
            self._keep(labelled_as(subject.row, label))
            return
        found = self._found(subject, decided.newest.text)
        if not found:
            self.unknown += [Undecided(subject, "the row is not in the inbox")] * counted
        elif label == subject.label:
            self.confirmed += counted
        else:
            self.corrected += counted
            self._older |= {file.name for file, _ in found}
            _, newest = found[-1]
            self._keep(labelled_as(newest.model_copy(update={"references": ()}), label))

    def _keep(self, row: Example) -> None:
        self._lines[row.source + row.id] = row.model_dump_json(exclude_defaults=True)

    def _found(self, subject: Subject, text: str) -> list[tuple[Path, Example]]:
        """The rows of the inbox with the subject's id, the newest last; or those with its text and label.

        Curation may have changed the text of a row, and qualified its id.
        """
        named = [(file, row) for file, row in self._rows if _is_named(row, subject)]
        equal = [(file, row) for file, row in named or self._rows if normalised(row.input) == normalised(text)]
        return equal or named if named else [(file, row) for file, row in equal if row.output == subject.label]


def _is_ours(file: Path) -> bool:
    return file.stem.rpartition("-")[0] == NAME


def _is_named(row: Example, subject: Subject) -> bool:
    """Whether the row has the subject's id, which curation may have qualified."""
    bare = subject.id.removeprefix(f"{subject.source}:")
    return row.source == subject.source and row.id in (subject.id, bare, bare.rpartition("~")[0])

"""`perpetune import openai`: from the files of OpenAI's fine-tuning to a workspace with rows and recorded answers."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.hosted.answer_file import Unusable, read_answers
from perpetune.curation.hosted.matching import index_of, save_answers, stored, with_rows
from perpetune.curation.ingest import Ingestion, ingest, preview
from perpetune.curation.readers.addresses.address import NamedFile
from perpetune.curation.running.layout import HOSTED_ANSWERS, INBOX
from perpetune.errors import PerpetuneError
from perpetune.records import Example, read_jsonl
from perpetune.scaffold.create import Created, Task, create
from perpetune.scaffold.inferred_task import InferredTask, inferred_task

VALIDATION = "openai-validation"
"""The source of validation rows: see `split.frozen_sources`."""


@dataclass(frozen=True)
class Wanted:
    """What the user says of the task; None is inferred from the rows."""

    name: str
    instruction: str | None = None
    kind: str | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Matched:
    """Recorded answers: how many there are, the rows of both files with and without one, and why others are of no use."""

    answers: int
    training: tuple[int, int]
    validation: tuple[int, int]
    unmatched: int
    unusable: tuple[Unusable, ...]

    @property
    def why_not(self) -> Counter[str]:
        return Counter(each.reason for each in self.unusable)


@dataclass(frozen=True)
class Imported:
    """What came of an import. `created` and `task` are None if the folder was a workspace before."""

    created: Created | None
    task: InferredTask | None
    training: tuple[Ingestion, ...]
    validation: tuple[Ingestion, ...]
    matched: Matched | None


def import_openai(
    folder: Path,
    training: Sequence[NamedFile],
    validation: Sequence[NamedFile],
    answers: Sequence[NamedFile],
    wanted: Wanted,
) -> Imported:
    """Make a workspace of the folder, unless it is one, ingest the rows and keep the hosted model's answers.

    Everything is read before anything is written. Raises PerpetuneError if a file cannot be read or has no valid row, or
    no answer belongs to a row.
    """
    learned = [row for file in training for row in _rows_in(file, None)]
    held_out = [row for file in validation for row in _rows_in(file, VALIDATION)]
    found, unusable = read_answers([(file.path, file.address) for file in answers])
    kept = stored(found)
    if answers and not kept:
        raise _no_answers(answers, unusable)
    created, task = None, None
    if not (folder / "params.yaml").is_file():
        task = inferred_task([*learned, *held_out], wanted.instruction, wanted.kind)
        created = create(folder, _task(task, wanted), beside_files=True)
    brought = tuple(ingest(file, folder / INBOX) for file in training)
    validated = tuple(ingest(file, folder / INBOX, source=VALIDATION) for file in validation)
    if kept:
        save_answers(folder / HOSTED_ANSWERS, with_rows(kept, _ingested([*brought, *validated])))
    index = index_of(kept)
    rows = [[index.answer_to(row) for row in _ingested(each)] for each in (brought, validated)]
    used = {answer.name for some in rows for answer in some if answer is not None}
    matched = Matched(
        len(kept),
        _counted(rows[0]),
        _counted(rows[1]),
        sum(answer.name not in used for answer in kept),
        tuple(unusable),
    )
    return Imported(created, task, brought, validated, matched if answers else None)


def _counted(answers: Sequence[object]) -> tuple[int, int]:
    """How many rows have an answer, and how many have none."""
    given = sum(answer is not None for answer in answers)
    return given, len(answers) - given


def _rows_in(file: NamedFile, source: str | None) -> tuple[Example, ...]:
    found = preview(file, source=source, limit=sys.maxsize)
    if not found.first:
        rejected = [f"line {row.line}: {row.field or 'row'}: {row.reason}" for row in found.summary.rejected[:3]]
        raise PerpetuneError(
            f"none of its {len(found.summary.rejected):,} rows can be learned from: {'; '.join(rejected)}",
            where=file.address,
            do="correct these rows, and import the file again",
        )
    return found.first


def _ingested(done: Sequence[Ingestion]) -> list[Example]:
    return [row for each in done for row in read_jsonl(each.path, Example)]


def _task(found: InferredTask, wanted: Wanted) -> Task:
    labels = found.labels if wanted.labels is None else wanted.labels
    return Task(wanted.name, found.instruction, found.kind, labels if found.kind == "classification" else ())


def _no_answers(files: Sequence[NamedFile], unusable: Sequence[Unusable]) -> PerpetuneError:
    shown = "; ".join(f"{each.where}: {each.reason}" for each in unusable[:3]) or "it has no line with an answer"
    return PerpetuneError(
        f"there is no answer of the hosted model: {shown}",
        where=", ".join(file.address for file in files),
        do='give the output of a batch and its requests, stored completions, or {"input": ..., "output": ...} a line',
    )

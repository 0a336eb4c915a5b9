"""Tasks out and annotations in, by a server or by files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from perpetune.annotation import argilla, label_studio
from perpetune.annotation.records import Annotation, AnnotationTask
from perpetune.annotation.server import LabelStudio
from perpetune.curation.readers.jsonl_file import jsonl_table
from perpetune.curation.readers.table import Row
from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.records import to_json

Format = Literal["label-studio", "argilla"]


@dataclass(frozen=True)
class Pushed:
    """How many tasks were added to which project, and how many it had already."""

    project: str
    url: str
    added: int
    known: int


def push(
    server: LabelStudio,
    title: str,
    tasks: Sequence[AnnotationTask],
    labels: Sequence[str] | None,
    annotators: int | None = None,
) -> Pushed:
    """Add the tasks that the project does not have; create the project, or give it the task's labels, if need be.

    What a team has changed in the configuration stays as long as it offers all labels. Raises PerpetuneError.
    """
    config = label_studio.labelling_config(labels)
    project = server.project(title) or server.create(title, config, annotators or 1)
    changes: dict[str, object] = {"maximum_annotations": annotators} if annotators else {}
    if not label_studio.offers(project.label_config, labels):
        changes["label_config"] = config
    if changes:
        server.change(project, changes)
    subjects = (label_studio.subject_of(task) for task in server.tasks(project))
    known = {subject.key for subject in subjects if subject}
    new = {task.subject.key: task for task in tasks if task.subject.key not in known}
    added = server.add(project, [label_studio.task_of(task, labelled=labels is not None) for task in new.values()])
    return Pushed(title, project.url, added, len(tasks) - len(new))


def pull(server: LabelStudio, title: str) -> list[Annotation]:
    """The annotations of a project. Raises PerpetuneError if there is no such project."""
    project = server.project(title)
    if project is None:
        raise PerpetuneError(
            f"there is no project {title!r}", do="run `perpetune annotate push` first, or say --project"
        )
    people = server.people()
    return [each for task in server.annotated(project) for each in label_studio.annotations_of(task, people)]


def write_tasks(path: Path, tasks: Sequence[AnnotationTask], format: Format, *, labelled: bool) -> None:
    """Write the tasks as a file that the tool imports. Raises PerpetuneError if it cannot be written."""
    found = [
        argilla.record_of(each) if format == "argilla" else label_studio.task_of(each, labelled=labelled)
        for each in tasks
    ]
    try:
        write_atomic(path, to_json(found))
    except OSError as fault:
        raise PerpetuneError(f"the file cannot be written: {fault.strerror}", where=str(path)) from None


def read_annotations(path: Path) -> list[Annotation]:
    """The annotations of an export: JSON or JSON Lines, of Label Studio or Argilla.

    Raises PerpetuneError if it cannot be read or has none of our tasks.
    """
    records = _records(path)
    ours = [
        each for each in records if (argilla.subject_of if argilla.is_record(each) else label_studio.subject_of)(each)
    ]
    if not ours:
        raise PerpetuneError(
            f"none of its {len(records):,} tasks is from `perpetune annotate push`",
            where=str(path),
            do="export as JSON (not JSON-MIN or CSV); for annotations of other tasks use `perpetune ingest`",
        )
    return [
        annotation
        for each in ours
        for annotation in (
            argilla.annotations_of(each) if argilla.is_record(each) else label_studio.annotations_of(each, {})
        )
    ]


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
        found = json.loads(data)
    except OSError as fault:
        raise PerpetuneError(f"the file cannot be read: {fault.strerror}", where=str(path)) from None
    except ValueError:
        found = [dict(row.values) for row in jsonl_table(data, path).rows if isinstance(row, Row)]
    listed = found if isinstance(found, list) else [found]
    return [each for each in listed if isinstance(each, dict)]

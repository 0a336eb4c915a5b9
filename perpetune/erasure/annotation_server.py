"""Tasks that people were sent, in the Label Studio of `perpetune annotate`: deleted there with all that was said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perpetune.annotation.label_studio import SHOWN, SUBJECT, subject_of
from perpetune.annotation.projects import default_title, projects_sent_to
from perpetune.annotation.records import Subject
from perpetune.annotation.server import KEY_VARIABLE, URL_VARIABLE, LabelStudio, Project, label_studio
from perpetune.curation.rows.sources import TRAFFIC
from perpetune.erasure.lines import is_erased
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Targets
from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class ServerResult:
    """How many tasks were deleted by project, and what is left, one sentence each."""

    deleted: Mapping[str, int]
    notes: tuple[str, ...]


NOTHING = ServerResult({}, ())


def examples_in_tasks(workspace: Workspace) -> Iterator[Example]:
    """The rows that tasks of this workspace are about; none if the server cannot be reached, which is said later."""
    url, key = _access(workspace)
    if not url or not key:
        return
    try:
        with label_studio(url, key) as server:
            for project in _own_projects(server, workspace):
                for task in server.tasks(project):
                    if subject := subject_of(task):
                        yield subject.row or _shown(task, subject)
    except PerpetuneError:
        return


def clean_annotation_server(
    workspace: Workspace, targets: Targets, scrubber: Scrubber, *, dry_run: bool
) -> ServerResult:
    """Delete every task that is about an erased row or holds an erased text, or count them.

    A server that cannot be reached or refuses stops no erasure: the notes say what remains there and how it is removed.
    """
    url, key = _access(workspace)
    others = {each.url for each in projects_sent_to(workspace.root)} - {url}
    notes = [
        _unreached(other, targets, f"set {URL_VARIABLE} to it and {KEY_VARIABLE} to its token")
        for other in sorted(others)
    ]
    if not url:
        return ServerResult({}, tuple(notes))
    if not key:
        return ServerResult({}, (*notes, _unreached(url, targets, f"set {KEY_VARIABLE} to a token")))
    try:
        with label_studio(url, key) as server:
            found = _cleaned(server, workspace, targets, scrubber, dry_run=dry_run)
    except PerpetuneError as fault:
        return ServerResult({}, (*notes, _unreached(url, targets, f"{fault.what}; {fault.do or 'make it reachable'}")))
    return ServerResult(found.deleted, (*notes, *found.notes))


def _access(workspace: Workspace) -> tuple[str | None, str | None]:
    settings = workspace.settings
    key = settings.label_studio_api_key
    return (settings.label_studio_url or "").rstrip("/") or None, key.get_secret_value() if key else None


def _own_projects(server: LabelStudio, workspace: Workspace) -> list[Project]:
    titles = {each.title for each in projects_sent_to(workspace.root) if each.url == server.address}
    titles.add(default_title(workspace.params.task.name))
    return [project for project in server.projects() if project.title in titles]


def _cleaned(
    server: LabelStudio, workspace: Workspace, targets: Targets, scrubber: Scrubber, *, dry_run: bool
) -> ServerResult:
    """In projects of this workspace ids count too; in those of others only texts, since their ids may be other rows'."""
    own = {project.id for project in _own_projects(server, workspace)}
    deleted: dict[str, int] = {}
    notes: list[str] = []
    for project in server.projects():
        if project.id not in own and SUBJECT not in server.fields(project):
            continue
        tasks = list(server.tasks(project, whole=True))
        erased = [task for task in tasks if _is_erased(task, targets, scrubber, is_own=project.id in own)]
        notes += _foreign(project, tasks, scrubber)
        if not erased:
            continue
        left = () if dry_run else _deleted(server, project, erased)
        notes += left
        deleted[project.title] = len(erased) - len(left)
        if exports := server.kept_exports(project):
            notes.append(
                f"Label Studio keeps exports of its project {project.title!r} on its disk, which may hold them: delete "
                f"{', '.join(exports)} in the folder `export` of its data"
            )
    return ServerResult(deleted, tuple(notes))


def _deleted(server: LabelStudio, project: Project, tasks: list[dict[str, Any]]) -> list[str]:
    """Delete the tasks; returns a sentence for each that the server did not delete."""
    left = []
    for task in tasks:
        try:
            server.delete(task)
        except PerpetuneError as fault:
            left.append(f"a task with an erased row remains, delete it there: {project.task_url(task)} ({fault.what})")
    return left


def _is_erased(task: Mapping[str, Any], targets: Targets, scrubber: Scrubber, *, is_own: bool) -> bool:
    subject = subject_of(task)
    if subject is None:
        return False
    named = {"subject": subject.model_dump(mode="json"), "text": _text(task), "label": "", "annotator": ""}
    if is_own and is_erased(named, targets, scrubber):
        return True
    anonymous = Example(input=_text(task), output="", id="", group="", source="")
    return targets.holds(anonymous) or scrubber.holds(_content(task))


def _foreign(project: Project, tasks: list[dict[str, Any]], scrubber: Scrubber) -> list[str]:
    """Tasks that hold an erased text and that perpetune did not send: they are not its to delete."""
    return [
        f"a task of another origin holds an erased text, delete it there: {project.task_url(task)}"
        for task in tasks
        if subject_of(task) is None and scrubber.holds(_content(task))
    ]


def _content(task: Mapping[str, Any]) -> dict[str, Any]:
    """What the task shows and what was answered, without who answered."""
    answers = [each for kind in ("annotations", "drafts", "predictions") for each in task.get(kind) or ()]
    return {"data": task.get("data"), "answers": [each.get("result") for each in answers if isinstance(each, dict)]}


def _text(task: Mapping[str, Any]) -> str:
    return str(task["data"].get(SHOWN, ""))


def _shown(task: Mapping[str, Any], subject: Subject) -> Example:
    """The row as far as its task shows it."""
    source = subject.source or TRAFFIC
    return Example(input=_text(task), output=subject.label or "", id=subject.id, group="", source=source)


def _unreached(url: str, targets: Targets, how: str) -> str:
    """What may remain on a server: a task is named by its row, which it has as `perpetune`."""
    names = sorted({f"{row.source}:{row.id}" for row in targets.found.values()})
    which = f"those about {', '.join(names)}" if names else "those that hold the text"
    return (
        f"tasks in Label Studio at {url} were not looked at, and {which} may remain: {how}, and run the command again with --id or --match, or "
        f"delete them there (the task's data `{SUBJECT}` has the id)"
    )

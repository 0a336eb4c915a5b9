"""Which projects of annotation servers rows were sent to, so that they can be erased there too."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from perpetune.records import read_jsonl, write_jsonl

PROJECTS = Path("data/annotations/projects.jsonl")


class SentTo(BaseModel):
    """A project by its server's address and its title."""

    model_config = ConfigDict(frozen=True)

    url: str
    title: str


def projects_sent_to(workspace: Path) -> tuple[SentTo, ...]:
    """The projects that `perpetune annotate` has talked to from here."""
    path = workspace / PROJECTS
    return tuple(read_jsonl(path, SentTo)) if path.is_file() else ()


def note_project(workspace: Path, url: str, title: str) -> None:
    """Keep that the project has rows of this workspace."""
    known, project = projects_sent_to(workspace), SentTo(url=url.rstrip("/"), title=title)
    if project not in known:
        write_jsonl(workspace / PROJECTS, [*known, project])


def default_title(task: str) -> str:
    """The title of a task's project if none is named."""
    return f"perpetune {task}"

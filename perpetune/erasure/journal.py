"""What an erasure is about to do, so that one that was killed is completed by the next.

The journal holds the texts themselves, because reports are searched for them after the rows are gone. It is readable by
its owner alone and deleted when all is done.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from perpetune.erasure.selection import Selector
from perpetune.files import write_atomic
from perpetune.records import Example

JOURNAL = "erasure.json"


class Journal(BaseModel):
    """An erasure that has begun: what was selected, the rows that were found, and the data versions met so far."""

    model_config = ConfigDict(frozen=True)

    id: str
    time: AwareDatetime
    by: str
    why: str
    selector: Selector
    strings: tuple[str, ...]
    rows: tuple[Example, ...]
    versions: dict[str, tuple[str, ...]] = {}


def journal_file(home: Path) -> Path:
    return home / JOURNAL


def read_journal(home: Path) -> Journal | None:
    """The erasure that was interrupted; None if there is none."""
    path = journal_file(home)
    return Journal.model_validate_json(path.read_bytes()) if path.is_file() else None


def write_journal(home: Path, journal: Journal) -> None:
    path = journal_file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.touch(0o600)
    write_atomic(path, journal.model_dump_json())
    path.chmod(0o600)


def close_journal(home: Path) -> None:
    """Overwrite the journal and delete it."""
    path = journal_file(home)
    if path.is_file():
        path.write_bytes(b"\0" * path.stat().st_size)
        path.unlink()

"""When the last backup was made and where it is, in a file of the home folder."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from perpetune.files import write_atomic

_FILE = "last-backup.json"


class LastBackup(BaseModel):
    model_config = ConfigDict(frozen=True)

    time: AwareDatetime
    place: str


def note_backup(home: Path, time: datetime, place: str) -> None:
    """Note a backup that was made. It is one without the note too, which the doctor then misses."""
    shown = re.sub(r"//[^/@]*@", "//", place) if "://" in place else str(Path(place).absolute())  # without a password
    with suppress(OSError):
        write_atomic(home / _FILE, LastBackup(time=time, place=shown).model_dump_json() + "\n")


def last_backup(home: Path) -> LastBackup | None:
    """The last backup; None if none was noted."""
    try:
        return LastBackup.model_validate_json((home / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None

"""Tombstones: which rows were erased and may not come back, by hashes alone.

`erased.json` lies beside `params.yaml` and belongs into git, so that every clone refuses the rows too. It names no text:
ids, groups and texts are SHA-256 hashes under the salt of the workspace.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from perpetune.curation.rows.dedup_key import input_key
from perpetune.curation.splitting.assignment_record import has_own_group, has_own_id
from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.records import Example, to_json

TOMBSTONES = Path("erased.json")


class Tombstone(BaseModel):
    """One removal. `versions` maps data versions that held a row to the splits it was in; `models` were trained on one."""

    model_config = ConfigDict(frozen=True)

    id: str
    time: AwareDatetime
    by: str
    why: str = ""
    selected_by: str
    rows: int
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    versions: dict[str, tuple[str, ...]] = {}
    models: tuple[str, ...] = ()

    @property
    def day(self) -> str:
        return self.time.date().isoformat()

    @property
    def sentence(self) -> str:
        reason = f" ({self.why})" if self.why else ""
        return f"it was erased on {self.day} by {self.by}{reason} and may not come back"


class Tombstones(BaseModel):
    """All removals of a workspace, oldest first."""

    model_config = ConfigDict(frozen=True)

    salt: str
    removals: tuple[Tombstone, ...] = ()

    def of(self, row: Example) -> Tombstone | None:
        """The removal that a row was erased by; None if it may stay."""
        if not self.removals:
            return None
        found = {self.text_hash(row), *self.id_hashes(row), *self.group_hashes(row)}
        return next((each for each in self.removals if found & _hashes(each)), None)

    def text_hash(self, row: Example) -> str:
        return self._hash("text", json.dumps(input_key(row), ensure_ascii=False))

    def id_hashes(self, row: Example) -> tuple[str, ...]:
        """The hash of the id that was given to the row, with its source; none if the id is that of the content."""
        bare = row.id.removeprefix(f"{row.source}:")
        return (self._hash("id", f"{row.source}:{bare}"),) if has_own_id(row) else ()

    def group_hashes(self, row: Example) -> tuple[str, ...]:
        return (self._hash("group", row.group),) if has_own_group(row) else ()

    def of_version(self, version: str) -> list[Tombstone]:
        """The removals of rows that this data version held."""
        return [each for each in self.removals if version in each.versions]

    def with_removal(self, removal: Tombstone) -> Tombstones:
        """With this removal in place of an earlier state of the same."""
        others = tuple(each for each in self.removals if each.id != removal.id)
        return self.model_copy(update={"removals": (*others, removal)})

    def _hash(self, kind: str, value: str) -> str:
        return hashlib.sha256(f"{self.salt} {kind} {value}".encode()).hexdigest()


def _hashes(removal: Tombstone) -> set[str]:
    return {*removal.ids, *removal.groups, *removal.texts}


def load_tombstones(workspace: Path) -> Tombstones:
    """The workspace's tombstones; none, under a new salt, if nothing was erased. Raises PerpetuneError if unreadable."""
    path = workspace / TOMBSTONES
    if not path.is_file():
        return Tombstones(salt=secrets.token_hex(16))
    try:
        return Tombstones.model_validate_json(path.read_bytes())
    except ValidationError:
        raise PerpetuneError(
            "the record of erased rows is damaged, so erased rows could come back",
            where=str(path),
            do="restore it from git",
        ) from None


def save_tombstones(workspace: Path, tombstones: Tombstones) -> None:
    write_atomic(workspace / TOMBSTONES, to_json(tombstones.model_dump(mode="json")))


def tombstone(
    tombstones: Tombstones, rows: Iterable[Example], *, id: str, when: datetime, by: str, why: str, selected_by: str
) -> Tombstone:
    """The tombstone of these rows. Their ids are only named if rows were selected by id, their groups if by group:

    the corrected version of a row that held a name is welcome under its id.
    """
    rows = tuple(rows)
    ids = {each for row in rows for each in tombstones.id_hashes(row)} if selected_by == "id" else set()
    groups = {each for row in rows for each in tombstones.group_hashes(row)} if selected_by == "group" else set()
    return Tombstone(
        id=id,
        time=when,
        by=by,
        why=why,
        selected_by=selected_by,
        rows=len(rows),
        ids=tuple(sorted(ids)),
        groups=tuple(sorted(groups)),
        texts=tuple(sorted({tombstones.text_hash(row) for row in rows})),
    )

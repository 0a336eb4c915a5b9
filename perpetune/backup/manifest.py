"""The manifest of a backup: every file with its digest. It is written last: without it, nothing counts as a backup."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError

from perpetune.errors import PerpetuneError

NAME = "manifest.json"
Kind = Literal["file", "postgresql"]


class BackedUpFile(BaseModel):
    """`name` is relative to the backup's folder `files`, and to the workspace. A dump of PostgreSQL has another `kind`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    bytes: int
    mode: int
    kind: Kind = "file"


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    task: str
    time: datetime
    versions: dict[str, str]
    files: tuple[BackedUpFile, ...]
    left_out: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.files)


class Place:
    """The folder of a backup: a path, or any address that fsspec knows, such as s3://BUCKET/FOLDER."""

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            self._files, self._root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as fault:
            raise PerpetuneError(f"the backup's address cannot be used: {fault}", where=address) from None

    def is_empty(self) -> bool:
        try:
            return not self._files.exists(self._root) or not self._files.ls(self._root)
        except OSError as fault:
            raise self.unreachable(fault) from fault

    def open(self, name: str, mode: Literal["rb", "wb"]) -> Any:
        """Raises OSError."""
        path = str(PurePosixPath(self._root) / name)
        if mode == "wb":
            self._files.makedirs(self._files._parent(path), exist_ok=True)
        return self._files.open(path, mode)

    def unreachable(self, fault: OSError) -> PerpetuneError:
        return PerpetuneError(f"the backup cannot be read or written: {fault}", where=self.address)


def read_manifest(place: Place) -> Manifest:
    """Raises PerpetuneError if there is none, because the folder is no backup or one that was not finished."""
    try:
        with place.open(NAME, "rb") as file:
            return Manifest.model_validate_json(file.read())
    except FileNotFoundError:
        raise PerpetuneError(
            f"this is no backup, or one that was interrupted: it has no {NAME}",
            where=place.address,
            do="name the folder of a finished backup",
        ) from None
    except ValidationError:
        raise PerpetuneError(
            "the manifest is damaged, or of a newer perpetune", where=f"{place.address}/{NAME}", do="use another backup"
        ) from None
    except OSError as fault:
        raise place.unreachable(fault) from fault

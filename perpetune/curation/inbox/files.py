"""The files of an inbox: examples, and beside them rejected rows, preferences and the origin."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from perpetune.curation.quarantine import EARLIEST, Rejected
from perpetune.curation.readers.addresses.compressed import without_compression
from perpetune.curation.rows.sources import IN_DOUBT, TRAFFIC
from perpetune.errors import PerpetuneError
from perpetune.records import read_jsonl

_SHARD = re.compile(r"-\d{3,}-of-\d{3,}$")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f/\\]|^[.\s]|\s$")
_LONGEST = 120  # bytes: a hash and suffixes follow, and file systems take 255


class Origin(BaseModel):
    """Where a file of the inbox comes from, and when it was ingested, if other files of the inbox have the same ids or rows.

    `prefix` is what its ids have before them, because an earlier file of the same name uses them for other rows.
    `newer_than` are the inbox files that it is a newer version of.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    ingested: AwareDatetime
    prefix: str = ""
    newer_than: tuple[str, ...] = ()


def inbox_files(inbox: Path) -> list[Path]:
    """The files of examples, in the order in which they were ingested; those without an origin first."""
    files = sorted(inbox.glob("*.jsonl"))
    return sorted(files, key=lambda file: (_ingested(file), file.name))


def _ingested(file: Path) -> datetime:
    origin = read_origin(file)
    return origin.ingested if origin else EARLIEST


def now() -> datetime:
    return datetime.now(UTC)


def origin_file(examples: Path) -> Path:
    """The path of an inbox file's origin."""
    return examples.parent / "origin" / f"{examples.stem}.json"


def read_origin(examples: Path) -> Origin | None:
    """The origin of an inbox file; None if nothing is to be said of it."""
    try:
        return Origin.model_validate_json(origin_file(examples).read_bytes())
    except (OSError, ValidationError):
        return None


def rejected_file(examples: Path) -> Path:
    """The path of an inbox file's rejected rows."""
    return examples.parent / "rejected" / f"{examples.stem}.rejected.jsonl"


def read_rejected(examples: Path) -> list[Rejected]:
    """The rejected rows of an inbox file."""
    path = rejected_file(examples)
    return read_jsonl(path, Rejected) if path.is_file() else []


def preferences_file(examples: Path) -> Path:
    """The path of an inbox file's preferences, in TRL's format."""
    return examples.parent / "preferences" / f"{examples.stem}.jsonl"


def source_name(path: Path) -> str:
    """The file's name as a source, without the number of a shard.

    `traffic` is reserved for labelled production traffic.
    """
    stem = _SHARD.sub("", without_compression(path).stem)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:60] or "examples"
    return "traffic-file" if name == "traffic" else name


def given_source(name: str) -> str:
    """The name that a user gives a source, which files are named after. Raises PerpetuneError if it cannot be one."""
    if not name or _NO_NAME.search(name) or len(name.encode()) > _LONGEST:
        raise PerpetuneError(
            f"no file can be named {name[:_LONGEST]!r}", where="--name", do="use letters, digits, - and _"
        )
    if name in (TRAFFIC, IN_DOUBT):
        raise PerpetuneError(
            f"only the prediction log has the source {name!r}", where="--name", do="choose another name"
        )
    return name

"""A params.yaml of an older schema brought up to date, comments and all."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import unified_diff
from itertools import count
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.params.edit import read_text, with_entry, with_keys
from perpetune.params.read import load_params, old_settings, read_yaml, require_known_schema
from perpetune.params.renamed_settings import RENAMED, SCHEMA, SCHEMA_KEY


@dataclass(frozen=True)
class Upgrade:
    """What an upgrade changes. `renamed` maps old names to new ones; `copy` is the old file, None if none was made."""

    from_schema: int
    to_schema: int
    renamed: dict[str, str]
    diff: str
    copy: Path | None = None


def upgrade(path: Path, *, dry_run: bool = False) -> Upgrade:
    """Rename the settings that have other names today and write the schema, keeping a copy of the old file beside it.

    A file that is up to date stays as it is. Raises PerpetuneError if there is none, it is no YAML or it is newer than
    this perpetune; or, after the upgrade, if the new file has another fault.
    """
    node, values = read_yaml(path)
    settings = values if isinstance(values, dict) else {}
    schema = settings.get(SCHEMA_KEY, 1)
    require_known_schema(schema, node, path)
    renamed = {name: RENAMED[name] for name in old_settings(node)}
    _refuse_both(renamed, settings, path)
    old = read_text(path)
    new = _upgraded(old, renamed, path) if renamed or schema != SCHEMA else old
    found = Upgrade(schema, SCHEMA, renamed, _diff(old, new, path.name))
    if dry_run or new == old:
        return found
    copy = _free_name(path)
    copy.write_bytes(old.encode("utf-8"))
    write_atomic(path.resolve(), new)
    load_params(path)
    return Upgrade(schema, SCHEMA, renamed, found.diff, copy)


def _upgraded(text: str, renamed: dict[str, str], path: Path) -> str:
    keys = {(old.partition(".")[0], old.partition(".")[2]): new.partition(".")[2] for old, new in renamed.items()}
    return with_entry(with_keys(text, keys), SCHEMA_KEY, str(SCHEMA), path)


def _refuse_both(renamed: dict[str, str], settings: dict[str, dict[str, object]], path: Path) -> None:
    for old, new in renamed.items():
        section, _, name = new.partition(".")
        if name in settings[section]:
            raise PerpetuneError(f"{old} and {new} are the same setting", where=str(path), do=f"delete {old}")


def _diff(old: str, new: str, name: str) -> str:
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    return "".join(unified_diff(before, after, fromfile=name, tofile=f"{name} (schema {SCHEMA})"))


def _free_name(path: Path) -> Path:
    """The first of params.yaml.bak, params.yaml.bak2, ... that is not there yet."""
    names = (path.with_name(f"{path.name}.bak{number if number > 1 else ''}") for number in count(1))
    return next(name for name in names if not name.exists())

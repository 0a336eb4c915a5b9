"""The record of split assignments: which split each row was put in first, for as long as the workspace lives.

The frozen holdout keeps its members because they are written down: rows are added, edited and removed, and groups of near
duplicates grow, but no assignment is made twice. Rows are named by hashes, so the record holds no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import yaml

from perpetune.curation.duplicates.canonical import canonical_turns
from perpetune.curation.running.layout import ASSIGNMENTS, RESOLVED, SPLITS
from perpetune.curation.text import fingerprint, normalised
from perpetune.errors import PerpetuneError
from perpetune.files import write_lines_atomic
from perpetune.params import SplitParams
from perpetune.records import Example, read_jsonl

PRECEDENCE = ("frozen", "validation", "train")
"""The splits that are recorded. If rows of several come into one group, the group is in the first of them."""

_NAMES = {name: name for name in PRECEDENCE}  # one text for all rows of a split

_DEFAULT_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class AssignmentRecord:
    """The split of each recorded id, group and text, by their hashes, into which `split.seed` goes.

    With another seed nothing is recorded yet: it asks for other holdouts. Rows of `frozen_sources` are frozen before
    anything is recorded of them.
    """

    seed: int
    splits: Mapping[str, str] = field(default_factory=dict)
    frozen_sources: frozenset[str] = frozenset(SplitParams().frozen_sources)

    def is_frozen(self, row: Example) -> bool:
        """Whether this very row, by its source or its id, is in the frozen holdout."""
        return row.source in self.frozen_sources or self._of_id(row) == "frozen"

    def of_row(self, row: Example, *, by_text: bool) -> str | None:
        """The recorded split of the row: by its id, so that its text may change, or by its group, or by its text.

        A row without an id of its own is known by the content that it came with, also if a step has changed its text.
        """
        if not self.splits:
            return None
        found = self._of_id(row) or self._of_group(row)
        return self.of_text(row) if found is None and by_text else found

    def first_use(self, row: Example) -> str | None:
        """The split in which the row, or else its text, was first, whichever group it is in now."""
        if not self.splits:
            return None
        return self._of_id(row) or self.of_text(row) or self._of_group(row)

    def of_text(self, row: Example) -> str | None:
        """The split in which a row with this text was first."""
        return self.splits.get(self._text_key(row)) if self.splits else None

    def _of_id(self, row: Example) -> str | None:
        if not self.splits:
            return None
        found = self.splits.get(self._id_key(row))
        if found is None and has_own_id(row):
            return self.splits.get(self._moved_key(row))
        # Earlier releases wrote down the source of a row without an id of its own too.
        return self.splits.get(self._id_in_source(row)) if found is None else found

    def _of_group(self, row: Example) -> str | None:
        return self.splits.get(self._group_key(row.group)) if has_own_group(row) else None

    def with_rows(self, parts: Mapping[str, Iterable[Example]]) -> AssignmentRecord:
        """The record with the rows of these splits; what it has already stays as it is."""
        added: dict[str, str] = {}
        for name in PRECEDENCE:
            for row in parts.get(name, ()):
                for key in self._keys_of(row):
                    added.setdefault(key, name)
        return replace(self, splits={**added, **self.splits})

    def _keys_of(self, row: Example) -> list[str]:
        groups = [self._group_key(row.group)] if has_own_group(row) else []
        ids = [self._id_key(row), self._moved_key(row)] if has_own_id(row) else [self._id_key(row)]
        return [*ids, *groups, self._text_key(row)]

    def _id_key(self, row: Example) -> str:
        """The hash of an id, which is a file's own. The content that stands for a missing one is the same in any file."""
        return self._id_in_source(row) if has_own_id(row) else fingerprint("content", self.seed, _bare_id(row))

    def _id_in_source(self, row: Example) -> str:
        return fingerprint("id", self.seed, row.source, _bare_id(row))

    def _moved_key(self, row: Example) -> str:
        """The hash of an id with its text, by which a row is known when its file has another name."""
        return fingerprint("moved", self.seed, _bare_id(row), canonical_turns(row))

    def _group_key(self, group: str) -> str:
        return fingerprint("group", self.seed, group)

    def _text_key(self, row: Example) -> str:
        return fingerprint("text", self.seed, canonical_turns(row))


def has_own_id(row: Example) -> bool:
    """Whether the id was given, and is not the hash of the content."""
    return not _DEFAULT_ID.fullmatch(row.id)


def has_own_group(row: Example) -> bool:
    """Whether the group was given, and is not the hash of the input."""
    return not _DEFAULT_ID.fullmatch(row.group) or row.group != fingerprint(normalised(row.input))


def given_name(row: Example) -> str:
    """What names the row for as long as it exists: its group, or its id if it has one and no group."""
    return f"{row.source}:{_bare_id(row)}" if has_own_id(row) and not has_own_group(row) else row.group


def _bare_id(row: Example) -> str:
    """The id without the source that `validate` puts before it as soon as two sources use the same ids."""
    return row.id.removeprefix(f"{row.source}:")


def load_record(workspace: Path, seed: int) -> AssignmentRecord:
    """The workspace's record; without one, that of the splits that are there.

    Raises PerpetuneError if the record is unreadable, or dvc.lock names one that is not in the workspace.
    """
    path = workspace / ASSIGNMENTS
    if path.is_file():
        return AssignmentRecord(seed, dict(_read(path)), _frozen_sources(workspace))
    if is_missing(workspace):
        raise PerpetuneError(
            "the record of which rows are in the frozen holdout is missing, so rows of it could be trained on",
            where=str(path),
            do=f"get it with `dvc pull {ASSIGNMENTS}`; to draw new holdouts, delete dvc.lock",
        )
    files = {name: workspace / SPLITS / f"{name}.jsonl" for name in PRECEDENCE}
    parts = {name: read_jsonl(file, Example) for name, file in files.items() if file.is_file()}
    return AssignmentRecord(seed, frozen_sources=_frozen_sources(workspace)).with_rows(parts)


def _frozen_sources(workspace: Path) -> frozenset[str]:
    """`split.frozen_sources`, as the pipeline resolved it; the default before that."""
    path = workspace / RESOLVED
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    params = settings.get("split") if isinstance(settings, dict) else None
    return frozenset((params or {}).get("frozen_sources", SplitParams().frozen_sources))


def is_missing(workspace: Path) -> bool:
    """Whether dvc.lock names a record that is not in the workspace, as in a fresh clone."""
    lock = workspace / "dvc.lock"
    if (workspace / ASSIGNMENTS).is_file() or not lock.is_file():
        return False
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    return any(out["path"] == ASSIGNMENTS.as_posix() for stage in stages.values() for out in stage.get("outs", ()))


def save_record(workspace: Path, record: AssignmentRecord) -> None:
    lines = (f"{key},{record.splits[key]}" for key in sorted(record.splits))
    write_lines_atomic(workspace / ASSIGNMENTS, chain(["key,split"], lines))


def _read(path: Path) -> Iterable[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, 1, None), start=2):
            key, _, name = line.rstrip("\n").partition(",")
            if name not in _NAMES:
                raise PerpetuneError(
                    f"{line.rstrip()[:60]!r} is no assignment to a split",
                    where=f"{path}:{number}",
                    do=f"get the file back with `dvc checkout --force {ASSIGNMENTS}`",
                )
            yield key, _NAMES[name]

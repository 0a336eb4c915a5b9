"""The table of languages: how many rows the step `language` found in each, and kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.running.layout import STEPS

FILE = STEPS / "language" / "languages.json"


@dataclass(frozen=True)
class Language:
    """A language by its ISO 639-1 code, or `undecided`, with its rows; `kept` are those that were not quarantined."""

    code: str
    rows: int
    kept: int

    @property
    def dropped(self) -> int:
        return self.rows - self.kept


def load_languages(workspace: Path) -> tuple[Language, ...]:
    """Most frequent first; none if languages were not detected."""
    path = workspace / FILE
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple(Language(code, each["rows"], each["kept"]) for code, each in found.items())

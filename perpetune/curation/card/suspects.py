"""Rows whose label is probably wrong, if a stage looked for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from perpetune.records import read_jsonl

FILES = (Path("data/steps/label_errors/suspects.jsonl"), Path("data/label_errors/suspects.jsonl"))
SHOWN = 10


class ShownSuspect(BaseModel):
    """A row, its label and the likelier one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str
    id: str
    input: str
    label: str
    suggested: str
    why: str = ""


@dataclass(frozen=True)
class SuspectedLabels:
    """How many labels are suspected, the surest first."""

    rows: int
    shown: tuple[ShownSuspect, ...]


def suspected_labels(workspace: Path) -> SuspectedLabels | None:
    """None if no stage looked for them."""
    path = next((workspace / each for each in FILES if (workspace / each).is_file()), None)
    if path is None:
        return None
    found = read_jsonl(path, ShownSuspect)
    return SuspectedLabels(len(found), tuple(found[:SHOWN]))

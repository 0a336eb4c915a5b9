"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perpetune.errors import PerpetuneError

Level = Literal["ok", "warning", "fault", "not checked"]


@dataclass(frozen=True)
class Finding:
    """What a check found, in one sentence. `do` is the way out of a fault or warning.

    A fault stops some part of the loop. A warning will become a fault, or is a risk.
    """

    subject: str
    level: Level
    what: str
    do: str = ""


def fault_of(subject: str, error: PerpetuneError) -> Finding:
    """An error that a check ran into, as a fault."""
    where = f" ({error.where})" if error.where else ""
    return Finding(subject, "fault", f"{error.what}{where}", error.do or "")

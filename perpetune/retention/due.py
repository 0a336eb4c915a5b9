"""What a retention has to delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Due:
    """Things of one kind that are due: how many, the bytes that their deletion frees, as far as that is known, and `delete`.

    `delete` may be repeated if it was interrupted. `which` names them for the audit log, if they have names.
    """

    name: str
    count: int
    bytes: int
    delete: Callable[[], None]
    which: tuple[str, ...] = ()

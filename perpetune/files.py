"""Atomic writes of text files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def write_atomic(path: Path, text: str) -> Path:
    """Write a text file atomically: readers see either the old content or the new; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    return unfinished.replace(path)


def write_lines_atomic(path: Path, lines: Iterable[str]) -> int:
    """Write lines as they come, of which only one is held in memory, atomically; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    count = 0
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
    return count

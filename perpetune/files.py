"""Atomic writes of text files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

UNFINISHED = ".unfinished"
"""The suffix of a file that is being written; a process that is killed meanwhile leaves it."""


def write_atomic(path: Path, text: str) -> Path:
    """Write a text file atomically: readers see either the old content or the new; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_text(text, encoding="utf-8")
    return unfinished.replace(path)


def write_lines_atomic(path: Path, lines: Iterable[str]) -> int:
    """Write lines as they come, of which only one is held in memory, atomically; returns how many."""
    count = 0
    with lines_atomic(path) as write:
        for line in lines:
            write(line)
            count += 1
    return count


@contextmanager
def lines_atomic(path: Path) -> Iterator[Callable[[str], None]]:
    """A function that writes a line. The file appears when the block ends; if the block fails, what is unfinished is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            yield lambda line: _write_line(file, line)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)


def _write_line(file: TextIO, line: str) -> None:
    file.write(line + "\n")

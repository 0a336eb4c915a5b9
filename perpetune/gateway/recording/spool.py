"""A queue of lines in files that survive the process.

A live process holds an exclusive flock on each of its files; an unlocked file belongs to a dead process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

logger = logging.getLogger(__name__)

_READ = 1 << 17  # bytes per read
_RETRY_SECONDS = 1.0  # after which a folder that could not be written is tried again


@dataclass(eq=False)
class _DiskSegment:
    """A file of complete lines; those before the offset `done` are in the database."""

    path: Path
    descriptor: int
    end: int = 0
    done: int = 0
    rows: int = 0
    safe: bool = False

    def read(self, limit: int) -> list[bytes]:
        size = _READ
        while True:
            read = os.pread(self.descriptor, min(size, self.end - self.done), self.done)
            whole = read[: read.rfind(b"\n") + 1]
            if whole or size >= self.end - self.done:
                return whole.splitlines(keepends=True)[:limit]
            size *= 2

    def drop(self, lines: Sequence[bytes]) -> None:
        self.done += sum(map(len, lines))
        self.rows -= len(lines)

    def sync(self) -> None:
        os.fsync(self.descriptor)
        self.safe = True

    def close(self) -> None:
        if not self.rows:
            self.path.unlink(missing_ok=True)
        elif not self.safe:
            self.sync()
        os.close(self.descriptor)


@dataclass(eq=False)
class _MemorySegment:
    lines: deque[bytes] = field(default_factory=deque)

    @property
    def rows(self) -> int:
        return len(self.lines)

    def read(self, limit: int) -> list[bytes]:
        return list(islice(self.lines, limit))

    def drop(self, lines: Sequence[bytes]) -> None:
        for _ in lines:
            self.lines.popleft()

    def close(self) -> None:
        """Nothing to do: the lines are lost with the process."""


class Spool:
    """A bounded queue of lines in files of a folder; in memory without one or while it cannot be written.

    `append` may be called in any thread and does not wait for an fsync; the other methods belong to one thread.
    `capacity` and `capacity_bytes` limit the queue, `memory` the rows held in memory.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        capacity: int,
        capacity_bytes: int = 1 << 30,
        memory: int = 5000,
        segment_bytes: int = 8 << 20,
    ) -> None:
        self.rows = 0
        self.error: str | None = None
        self._folder = folder
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._memory = memory
        self._segment_bytes = segment_bytes
        self._bytes = 0
        self._in_memory = 0
        self._segments: deque[_DiskSegment | _MemorySegment] = deque()
        self._lock = threading.Lock()
        self._retry_at = 0.0

    @property
    def in_memory(self) -> int:
        """The number of rows that would be lost with the process."""
        return self._in_memory

    def adopt(self, callback: Callable[[bytes], None]) -> int:
        """Prepend the lines of dead processes, call `callback` with each, and return their number."""
        if self._folder is None:
            return 0
        left = [segment for path in sorted(self._folder.glob("*.jsonl")) if (segment := _take_over(path))]
        for segment in left:
            while segment.done < segment.end and (lines := segment.read(10_000)):
                for line in lines:
                    callback(line)
                segment.done += sum(map(len, lines))
                segment.rows += len(lines)
            segment.done = 0
        with self._lock:
            rows = sum(segment.rows for segment in left)
            self._segments.extendleft(reversed(left))
            self.rows += rows
            self._bytes += sum(segment.end for segment in left)
        return rows

    def append(self, line: bytes, *, must_survive: bool = False) -> bool:
        """Add a line; False if the queue is full, or with `must_survive` if it cannot be written to disk."""
        with self._lock:
            if self.rows >= self._capacity or self._bytes + len(line) > self._capacity_bytes:
                return False
            if not (self._to_disk(line) or (not must_survive and self._to_memory(line))):
                return False
            self.rows += 1
            self._bytes += len(line)
            return True

    def read(self, limit: int) -> list[bytes]:
        """The oldest lines."""
        with self._lock:
            first = next((segment for segment in self._segments if segment.rows), None)
        return first.read(limit) if first else []

    def drop(self, lines: Sequence[bytes]) -> None:
        """Remove the oldest lines, as returned by `read`, and delete finished files."""
        with self._lock:
            first = next(segment for segment in self._segments if segment.rows)
            first.drop(lines)
            self.rows -= len(lines)
            self._bytes -= sum(map(len, lines))
            if isinstance(first, _MemorySegment):
                self._in_memory -= len(lines)
            while len(self._segments) > 1 and not self._segments[0].rows:
                self._segments.popleft().close()
            last = self._segments[-1]
            if isinstance(last, _DiskSegment) and not last.rows and last.end:
                os.ftruncate(last.descriptor, 0)
                last.end = last.done = 0

    def sync(self) -> None:
        """fsync full files; failures are retried the next time."""
        with self._lock:
            full = [segment for segment in list(self._segments)[:-1] if isinstance(segment, _DiskSegment)]
        for segment in full:
            if not segment.safe:
                try:
                    segment.sync()
                except OSError as fault:
                    logger.error("%s could not be synced to disk yet: %s", segment.path, fault.strerror)

    def close(self) -> None:
        with self._lock:
            for segment in self._segments:
                segment.close()
            self._segments.clear()

    def _to_disk(self, line: bytes) -> bool:
        if self._folder is None or (self.error and time.monotonic() < self._retry_at):
            return False
        try:
            segment = self._writable(self._folder)
            _write(segment, line)
        except OSError as fault:
            self._report(fault)
            return False
        if self.error:
            logger.warning("the spool can be written again")
        self.error = None
        segment.end += len(line)
        segment.rows += 1
        return True

    def _writable(self, folder: Path) -> _DiskSegment:
        last = self._segments[-1] if self._segments else None
        if isinstance(last, _DiskSegment) and last.end < self._segment_bytes:
            return last
        self._segments.append(_create(folder))
        return self._writable(folder)

    def _to_memory(self, line: bytes) -> bool:
        if self._in_memory >= self._memory:
            return False
        if not self._segments or not isinstance(self._segments[-1], _MemorySegment):
            self._segments.append(_MemorySegment())
        last = self._segments[-1]
        assert isinstance(last, _MemorySegment)
        last.lines.append(line)
        self._in_memory += 1
        return True

    def _report(self, fault: OSError) -> None:
        error = f"the spool cannot be written ({fault.strerror or fault}), so rows wait in memory"
        if error != self.error:
            logger.error("%s: %s", self._folder, error)
        self.error = error
        self._retry_at = time.monotonic() + _RETRY_SECONDS


def _create(folder: Path) -> _DiskSegment:
    """Create a file, locked before it gets its final name."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
    hidden = path.with_suffix(".new")
    descriptor = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(path)
    except OSError:
        os.close(descriptor)
        hidden.unlink(missing_ok=True)
        raise
    return _DiskSegment(path, descriptor)


def _write(segment: _DiskSegment, line: bytes) -> None:
    """Write the line in one call, completely or not at all."""
    written = os.write(segment.descriptor, line)
    if written < len(line):
        os.ftruncate(segment.descriptor, segment.end)
        raise OSError(f"only {written} of {len(line)} bytes fit")


def _take_over(path: Path) -> _DiskSegment | None:
    """Open a dead process's file; None if its owner is alive or it cannot be read."""
    try:
        descriptor = os.open(path, os.O_APPEND | os.O_RDWR)
    except FileNotFoundError:
        return None
    except OSError as fault:
        logger.error("%s: the spooled rows cannot be read: %s", path, fault.strerror)
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    status = os.fstat(descriptor)
    if not status.st_nlink:  # its owner has just deleted it
        os.close(descriptor)
        return None
    end = _end_of_lines(descriptor, status.st_size)
    if end < status.st_size:
        logger.warning("%s: the last line is incomplete (%d bytes) and is dropped", path, status.st_size - end)
        os.ftruncate(descriptor, end)
    return _DiskSegment(path, descriptor, end=end)


def _end_of_lines(descriptor: int, size: int) -> int:
    """The offset after the last complete line."""
    end = size
    while end:
        start = max(0, end - _READ)
        callback = os.pread(descriptor, end - start, start).rfind(b"\n")
        if callback >= 0:
            return start + callback + 1
        end = start
    return 0

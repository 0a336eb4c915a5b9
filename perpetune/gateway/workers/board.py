"""What the workers of a gateway tell each other, in files of a folder of their own."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.files import UNFINISHED, write_atomic
from perpetune.model.release import DesiredReleases, Trial


@dataclass(frozen=True)
class Post:
    """What the first worker serves, the newest `Board.ask` that it has answered, and its errors.

    `error` is with the registry, `release_error` with a version that is champion there or on trial and is not served.
    `at` is when it wrote this, by the machine's monotonic clock, which is the same in all processes.
    """

    releases: DesiredReleases
    answered: int
    error: str | None
    at: float
    release_error: str | None = None


class Board:
    """Files that each have one writer and are replaced whole, so that a reader sees either the old or the new one.

    What writes raises PerpetuneError if the folder cannot be written to, as on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asking = (
            threading.Lock()
        )  # requests ask in threads, and a later number must not be replaced by an earlier

    def post(
        self, releases: DesiredReleases, answered: int, error: str | None, release_error: str | None = None
    ) -> None:
        """Written by the first worker."""
        self._write("post.json", json.dumps(asdict(Post(releases, answered, error, time.monotonic(), release_error))))

    def read(self) -> Post | None:
        """The newest post; None if there was none yet."""
        found = _read(self._folder / "post.json")
        if found is None:
            return None
        content = json.loads(found)
        releases = content.pop("releases")
        trial = releases.pop("trial")
        return Post(DesiredReleases(trial=Trial(**trial) if trial else None, **releases), **content)

    def ask(self, worker: int) -> int:
        """Ask the first worker to read the registry now; it has done so once a post has `answered` this number."""
        with self._asking:
            number = time.monotonic_ns()
            self._write(f"asked-{worker}", str(number))
        return number

    def asked(self) -> int:
        """The newest number that `ask` has returned; 0 if it never has."""
        return max((int(_read(path) or 0) for path in self._files("asked")), default=0)

    def report(self, worker: int, serving: str | None) -> None:
        """Say which version a worker serves."""
        self._write(f"serving-{worker}", json.dumps({"pid": os.getpid(), "serving": serving}))

    def reports(self) -> dict[int, str]:
        """The version that each living worker serves; without those that serve none yet."""
        found = {}
        for path in self._files("serving"):
            report = json.loads(_read(path) or "{}")
            if report.get("serving") is not None and _lives(report["pid"]):
                found[int(path.name.partition("-")[2])] = str(report["serving"])
        return found

    def count(self, worker: int, metrics: bytes) -> None:
        """Keep a worker's metrics, in Prometheus' format, those of the processes before it in its place included."""
        self._write(f"metrics-{worker}", f"{os.getpid()}\n{metrics.decode()}")

    def counted_before(self, worker: int) -> list[str]:
        """The metrics that the process before this one in the place of `worker` has kept, if there was one."""
        found = _read(self._folder / f"metrics-{worker}")
        return [found.partition("\n")[2]] if found else []

    def counted(self, worker: int) -> tuple[list[str], list[str]]:
        """The metrics of those other workers that live, and of those that have ended and are not yet replaced."""
        alive: list[str] = []
        ended: list[str] = []
        for path in self._files("metrics"):
            pid, _, text = (_read(path) or "").partition("\n")
            if pid and path.name != f"metrics-{worker}":
                (alive if _lives(int(pid)) else ended).append(text)
        return alive, ended

    def _write(self, name: str, text: str) -> None:
        try:
            write_atomic(self._folder / name, text)
        except OSError as fault:
            raise PerpetuneError(
                f"the gateway's workers cannot tell each other what they serve: {fault.strerror}",
                where=str(self._folder),
                do="make room there, or set TMPDIR to another folder and start the gateway again",
            ) from fault

    def _files(self, kind: str) -> Iterator[Path]:
        """Whole files: a worker that was killed while it wrote leaves an unfinished one."""
        return (path for path in self._folder.glob(f"{kind}-*") if path.suffix != UNFINISHED)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""`python -m perpetune.training.remote.worker ADDRESS`: train a job of an object store, and leave the result there.

This is the command of the container. It needs a machine with perpetune, credentials for the store, and its GPUs.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.params import BaseParams
from perpetune.training.job_files import REFUSAL, TRAINED, Job
from perpetune.training.processes import process_count, torchrun
from perpetune.training.remote.store import JobStore

SYNC_SECONDS = 5.0
ABANDONED_SECONDS = 15 * 60.0
STOP_SECONDS = 30.0
_ABANDONED = 75  # EX_TEMPFAIL
_STDERR_BYTES = 20_000


def work(address: str, sync_seconds: float = SYNC_SECONDS, abandoned_seconds: float = ABANDONED_SECONDS) -> int:
    """Returns the training's exit status.

    If nothing waits for the result any more, it stops the training and deletes the job, which holds rows. Raises
    PerpetuneError if the store fails before the training has started or after it has ended.
    """
    store = JobStore(address)
    with tempfile.TemporaryDirectory(prefix="perpetune-job-") as scratch:
        folder = Path(scratch)
        with (folder / "stderr").open("w+b") as errors:
            job = _fetch(store, folder)
            mirror = _Mirror(store, folder / "checkpoints")
            try:
                status = _train(store, job, folder, errors, mirror, sync_seconds, _Watch(store, abandoned_seconds))
            except SystemExit:
                mirror.upload()  # a container that is started again, as spot instances are, goes on from there
                raise
            if status == _ABANDONED:
                store.remove()
                return status
            mirror.upload()
            _leave_result(store, folder, status)
            errors.seek(max(0, errors.seek(0, 2) - _STDERR_BYTES))
            _end(store, status, errors.read())
            return status


def _fetch(store: JobStore, folder: Path) -> Job:
    for name in ("job.json", "train.jsonl", "validation.jsonl"):
        store.download(name, folder / name)
    store.download_folder("checkpoints", folder / "checkpoints")
    job = Job.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))
    base = store.read("base.json")
    local = job.model_copy(
        update={
            "base": job.base if base is None else _fetch_base(json.loads(base), job.base, folder / "base"),
            "assets": folder / "assets",
            "adapter": folder / "adapter",
            "checkpoints": None if job.checkpoints is None else folder / "checkpoints",
        }
    )
    write_atomic(folder / "job.json", local.model_dump_json())
    return local


def _fetch_base(address: str, base: BaseParams, folder: Path) -> BaseParams:
    JobStore(address).download_folder("", folder)
    return base.model_copy(update={"model": f"path:{folder}", "revision": None})


class _Mirror:
    """Keeps the checkpoints of the store as new as those of this machine."""

    def __init__(self, store: JobStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._stored = self._stamps()

    def upload(self) -> None:
        for name, stamp in self._stamps().items():
            if self._stored.get(name) != stamp:
                self._store.upload(self._folder / name, f"checkpoints/{name}")
                self._stored[name] = stamp

    def _stamps(self) -> dict[str, int]:
        files = self._folder.glob("*.pt") if self._folder.is_dir() else ()
        stamps = {}
        for file in files:
            with suppress(FileNotFoundError):  # renamed meanwhile
                stamps[file.name] = file.stat().st_mtime_ns
        return stamps


class _Watch:
    """Whether a client still waits: its file `alive` changes."""

    def __init__(self, store: JobStore, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._seen, self._since = b"", time.monotonic()

    def is_abandoned(self) -> bool:
        seen = self._store.read("alive") or b""
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since > self._seconds


def _train(
    store: JobStore,
    job: Job,
    folder: Path,
    errors: IO[bytes],
    mirror: _Mirror,
    sync_seconds: float,
    watch: _Watch,
) -> int:
    count = process_count(job.params)
    command = torchrun(count) if count > 1 else [sys.executable]
    process = subprocess.Popen(
        [*command, "-m", "perpetune.training.job", str(folder)], stdout=subprocess.PIPE, stderr=errors, text=True
    )
    assert process.stdout is not None
    output = _Output(store, process.stdout)
    try:
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(sync_seconds)
            # The training is worth more than its progress: what cannot be stored now is stored later.
            with suppress(PerpetuneError):
                if watch.is_abandoned():  # first: it may be that nothing can be stored
                    return _ABANDONED
                output.upload()
                mirror.upload()
    finally:
        _stop(process)
    output.finish()
    return process.returncode


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Output:
    """The lines that the training prints, stored a few at a time."""

    def __init__(self, store: JobStore, stream: IO[str]) -> None:
        self._store = store
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waiting: list[str] = []
        self._stored = len(store.stamps("output"))  # of a container that was interrupted
        self._reader = threading.Thread(target=self._read, args=(stream, self._lines.put), daemon=True)
        self._reader.start()

    def upload(self) -> None:
        while not self._lines.empty():
            self._waiting.append(self._lines.get())
        if self._waiting:
            self._store.write(f"output/{self._stored:08d}", "".join(self._waiting).encode())
            self._waiting, self._stored = [], self._stored + 1

    def finish(self) -> None:
        self._reader.join()
        self.upload()

    @staticmethod
    def _read(stream: IO[str], put: Callable[[str], None]) -> None:
        for line in stream:
            put(line)


def _leave_result(store: JobStore, folder: Path, status: int) -> None:
    if status == 0:
        store.upload_folder(folder / "adapter", "adapter")
        store.upload(folder / TRAINED, TRAINED)
    elif (folder / REFUSAL).is_file():
        store.upload(folder / REFUSAL, REFUSAL)


def _end(store: JobStore, status: int, errors: bytes) -> None:
    ended = {"status": status, "stderr": errors.decode(errors="replace")}
    store.write("ended.json", json.dumps(ended).encode())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(work(sys.argv[1]))
    except PerpetuneError as fault:
        sys.exit(str(fault))

"""Have a service train a job that lies in a folder here, and bring the result into that folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.model.weights import SMALL_FILES, resolve, weight_files, weights_digest
from perpetune.training.job_files import REFUSAL, TRAINED, Job
from perpetune.training.remote.store import JobStore

POLL_SECONDS = 5.0
SILENT_SECONDS = 300.0
STOPPING_SECONDS = 60.0


class Service(Protocol):
    """What runs `python -m perpetune.training.remote.worker ADDRESS` in a container. Methods raise PerpetuneError."""

    def start(self, address: str) -> str:
        """Start it; returns the service's name of the job."""

    def why_ended(self, job: str) -> str | None:
        """In the service's words why the job has ended; None while it waits or runs."""

    def stop(self, job: str) -> None:
        """Stop the job: the container gets SIGTERM."""


@dataclass(frozen=True)
class Patience:
    """Seconds between two looks, and until a store or service that fails counts as gone."""

    poll: float = POLL_SECONDS
    silent: float = SILENT_SECONDS
    stopping: float = STOPPING_SECONDS


def train_remotely(folder: Path, root: JobStore, service: Service, patience: Patience = Patience()) -> int:
    """Train the job of `folder` (see perpetune.training.job); returns its exit status, and prints what it prints.

    The rows are in the store only meanwhile; the files of a base that comes from no hub stay there for the next job. Raises
    PerpetuneError if the store or the service fails, or the container ends without a result.
    """
    job = Job.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))
    store = root.below(f"jobs/{uuid.uuid4().hex}")
    try:
        _upload(job, folder, root, store)
        checkpoints = _Checkpoints(store, job)
        name = service.start(store.address)
        print(f"training runs as {name}, its files are in {store.address}", file=sys.stderr)
        try:
            status = _follow(store, service, name, checkpoints, patience)
        except BaseException:
            _stop(service, name, patience)
            with suppress(PerpetuneError):
                checkpoints.fetch()
            raise
        checkpoints.fetch()
        _bring(job, folder, store, status)
        return status
    finally:
        _remove(store)


def _remove(store: JobStore) -> None:
    """A training that has come back is not lost because its files stay, and an error is not hidden by another."""
    try:
        store.remove()
    except PerpetuneError as fault:
        print(f"the files of the job stay in the store: {fault}", file=sys.stderr)


def _upload(job: Job, folder: Path, root: JobStore, store: JobStore) -> None:
    if (address := _base_in_store(job, root)) is not None:
        store.write("base.json", json.dumps(address).encode())
    if job.checkpoints is not None and job.checkpoints.is_dir():
        for file in sorted(job.checkpoints.glob("*.pt")):
            store.upload(file, f"checkpoints/{file.name}")
    for name in ("train.jsonl", "validation.jsonl", "job.json"):
        store.upload(folder / name, name)


def _base_in_store(job: Job, root: JobStore) -> str | None:
    """The address of the base's files, stored under a digest of them; None if the worker gets them from the hub."""
    if job.base.model.startswith("hf:"):
        return None
    folder = resolve(job.base, job.assets)
    small = sorted({file for pattern in SMALL_FILES for file in folder.glob(pattern)})
    digest = hashlib.sha256(weights_digest(folder).encode())
    for file in small:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    base = root.below(f"bases/{digest.hexdigest()[:32]}")
    files = [*weight_files(folder), *small]
    # config.json comes last: if it is there, so are the others.
    files.sort(key=lambda file: file.name == "config.json")
    if base.read("config.json") is None:
        for file in files:
            base.upload(file, file.name)
    return base.address


class _Checkpoints:
    """Fetches new checkpoints, so that the next attempt goes on even if the store or this process is lost."""

    def __init__(self, store: JobStore, job: Job) -> None:
        self._store, self._folder = store, job.checkpoints
        self._seen = store.stamps("checkpoints")

    def fetch(self) -> None:
        if self._folder is None:
            return
        for name, stamp in self._store.stamps("checkpoints").items():
            if self._seen.get(name) != stamp:
                self._store.download(f"checkpoints/{name}", self._folder / name)
                self._seen[name] = stamp


def _follow(store: JobStore, service: Service, name: str, checkpoints: _Checkpoints, patience: Patience) -> int:
    """Print the job's lines until it has ended; returns its exit status."""
    printed = heard = 0
    heard_at = time.monotonic()
    while True:
        try:
            # The service is asked first: a container stores its result before it ends.
            reason = service.why_ended(name)
            ended = store.read("ended.json")
            heard += 1
            store.write("alive", str(heard).encode())
            printed = _print_new(store, printed)
            if ended is not None:
                return _print_end(json.loads(ended))
            checkpoints.fetch()
            heard_at = time.monotonic()
        except PerpetuneError:
            if time.monotonic() - heard_at > patience.silent:
                raise
            reason = None
        if reason is not None:
            raise PerpetuneError(
                f"the container ended without a result: {reason}", where=name, do="read its log in the service"
            )
        time.sleep(patience.poll)


def _print_new(store: JobStore, printed: int) -> int:
    while (lines := store.read(f"output/{printed:08d}")) is not None:
        sys.stdout.write(lines.decode())
        sys.stdout.flush()
        printed += 1
    return printed


def _print_end(ended: dict[str, object]) -> int:
    sys.stderr.write(str(ended["stderr"]))
    return int(str(ended["status"]))


def _stop(service: Service, name: str, patience: Patience) -> None:
    """Stop the container and wait until it has stored its checkpoint."""
    with suppress(PerpetuneError):
        service.stop(name)
        until = time.monotonic() + patience.stopping
        while time.monotonic() < until and service.why_ended(name) is None:
            time.sleep(min(1.0, patience.poll))


def _bring(job: Job, folder: Path, store: JobStore, status: int) -> None:
    for name in (REFUSAL, TRAINED):
        if (content := store.read(name)) is not None:
            write_atomic(folder / name, content.decode())
    if status == 0:
        arriving = folder / "adapter"
        store.download_folder("adapter", arriving)
        shutil.rmtree(job.adapter, ignore_errors=True)
        job.adapter.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(arriving, job.adapter)
        trained = json.loads((folder / TRAINED).read_text(encoding="utf-8"))
        write_atomic(folder / TRAINED, json.dumps({**trained, "adapter": str(job.adapter)}))

"""The folder of a job in an object store: any address that fsspec knows, such as s3://BUCKET/FOLDER.

| name | by | content |
|---|---|---|
| job.json, train.jsonl, validation.jsonl | client | as perpetune.training.job reads them |
| base.json | client | the address of the base model's files; missing if the worker fetches it from a hub |
| alive | client | a number that changes while the client waits |
| checkpoints/ | both | what the training goes on from |
| output/NUMBER | worker | lines of progress, in order |
| adapter/, trained.json or refused.json | worker | the result |
| ended.json | worker | the exit status and the last of standard error; written last |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec

from perpetune.errors import PerpetuneError


class JobStore:
    """Files below an address. Every method raises PerpetuneError if the store fails."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        with self._said():
            self._files, self._root = fsspec.core.url_to_fs(self.address)

    def below(self, name: str) -> JobStore:
        return JobStore(f"{self.address}/{name}")

    def write(self, name: str, content: bytes) -> None:
        with self._said():
            self._make_parent(name)
            self._files.pipe_file(self._path(name), content)

    def read(self, name: str) -> bytes | None:
        """None if there is no such file."""
        with self._said():
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def upload(self, file: Path, name: str) -> None:
        with self._said():
            self._make_parent(name)
            self._files.put_file(str(file), self._path(name))

    def download(self, name: str, file: Path) -> None:
        """Replace `file` once all of it has come."""
        file.parent.mkdir(parents=True, exist_ok=True)
        coming = file.with_name(f"{file.name}.coming")
        with self._said():
            self._files.get_file(self._path(name), str(coming))
        coming.replace(file)

    def upload_folder(self, folder: Path, name: str) -> None:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.upload(file, f"{name}/{file.relative_to(folder).as_posix()}")

    def download_folder(self, name: str, folder: Path) -> None:
        for found in self.stamps(name):
            self.download(str(PurePosixPath(name) / found), folder / found)

    def stamps(self, name: str) -> dict[str, str]:
        """The files below `name`, in the order of their names, each with a text that changes when its content does."""
        with self._said():
            self._files.invalidate_cache()
            root = PurePosixPath(self._path(name))
            try:
                found = sorted(str(path) for path in self._files.find(str(root)))
            except FileNotFoundError:
                return {}
            return {str(PurePosixPath(path).relative_to(root)): str(self._files.ukey(path)) for path in found}

    def remove(self) -> None:
        with self._said():
            self._files.invalidate_cache()
            if self._files.exists(self._root):
                self._files.rm(self._root, recursive=True)

    def _path(self, name: str) -> str:
        return str(PurePosixPath(self._root) / name)

    def _make_parent(self, name: str) -> None:
        # In an object store this does nothing, or would ask whether the bucket is there.
        if "file" in self._files.protocol:
            self._files.makedirs(self._files._parent(self._path(name)), exist_ok=True)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        # Each file system has errors of its own, which share no class.
        except Exception as fault:
            what = (str(fault) or type(fault).__name__).splitlines()[0]
            raise PerpetuneError(
                f"the object store cannot be used: {what}",
                where=self.address,
                do="check the address, the credentials, and that s3fs (s3://), gcsfs (gs://) or adlfs (az://) is installed",
            ) from fault

"""A small file system of memory that can be filled to its last byte."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_FILLER = "filler"


class Disk:
    """`folder` is a file system of its own, if this user may mount one; `can_fill` says whether it is."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "none", str(folder)]
        self.can_fill = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0

    def fill(self) -> None:
        assert self.can_fill
        with (self.folder / _FILLER).open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        (self.folder / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        if self.can_fill:
            subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True)

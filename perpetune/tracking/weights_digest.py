"""What a registered version's weights must be when they are loaded again: safetensors, and those that were registered."""

from __future__ import annotations

import hashlib
from pathlib import Path

from perpetune.errors import PerpetuneError

TAG = "weights.digest"
_CONFIG = "adapter_config.json"
# Pickles and archives of them, which run what they like when they are loaded.
_CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".msgpack", ".h5", ".keras")


def weights_digest(folder: Path) -> str:
    """The SHA-256 of the names and contents of all safetensors files, and of the adapter's settings, in hex.

    Files with texts are not in it, since an erasure rewrites them.
    """
    digest = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.suffix == ".safetensors" or path.name == _CONFIG)
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def require_registered(folder: Path, expected: str | None, version: str) -> None:
    """Raises PerpetuneError if weights are no safetensors, or are not those that were registered.

    `expected` is None for a version of a perpetune that noted no digest: it may not hold code either.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _CODE:
            raise PerpetuneError(
                f"version {version} holds a file that can run code when it is loaded: only safetensors are loaded",
                where=str(path),
                do="find out who put it into MLflow's artifacts; `perpetune rollback` serves the previous version",
            )
    if expected is not None and (found := weights_digest(folder)) != expected:
        raise PerpetuneError(
            f"the weights of version {version} are not those that were registered: their digest is {found[:12]}, "
            f"{expected[:12]} was registered",
            where=str(folder),
            do="restore MLflow's artifacts from a backup and delete this folder, or `perpetune rollback`",
        )

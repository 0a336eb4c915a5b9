"""Embeddings on disk, so that a text is embedded once and not at every run."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_KEY_BYTES = 16


class EmbeddingCache:
    """The embeddings of one encoder, by hashes of the texts. They are kept in half precision.

    Other encoders' files in the folder are deleted, and so are embeddings of texts that are no longer among the rows: what
    was removed from the data leaves no trace here.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder = folder
        self._file = folder / f"{digest[:16]}.npz"

    def encode(
        self, texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray], keep: Iterable[str] | None = None
    ) -> Vectors:
        """Embeddings of shape (texts, size); new texts are embedded.

        `keep` are all texts of the data: what is neither of them nor of `texts` is forgotten. None forgets nothing.
        """
        known = self._load()
        keys = [_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        added: dict[bytes, NDArray[np.float16]] = {}
        if new:
            added = dict(zip(new, embed(list(new.values())).astype(np.float16), strict=True))
        wanted = {*keys, *map(_key, keep)} if keep is not None else {*keys, *known}
        kept = {key: vector for key, vector in {**known, **added}.items() if key in wanted}
        if kept and (new or len(kept) < len(known)):
            self._save(kept)
        if not kept:
            self._file.unlink(missing_ok=True)
        return np.stack([kept[key] for key in keys]).astype(np.float32) if keys else np.zeros((0, 1), np.float32)

    def forget(self, texts: Iterable[str]) -> int:
        """Delete the embeddings of these texts, from which much of a text can be guessed; returns how many there were."""
        known, gone = self._load(), set(map(_key, texts))
        kept = {key: vector for key, vector in known.items() if key not in gone}
        if len(kept) < len(known):
            if kept:
                self._save(kept)
            else:
                self._file.unlink(missing_ok=True)
        return len(known) - len(kept)

    def count_of(self, texts: Iterable[str]) -> int:
        """How many of these texts it has embeddings of."""
        return len(self._load().keys() & set(map(_key, texts)))

    def _load(self) -> Mapping[bytes, NDArray[np.float16]]:
        """What is on disk; nothing if that cannot be read, since it can be computed again."""
        try:
            with np.load(self._file) as stored:
                keys, vectors = stored["keys"], stored["vectors"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}
        return {bytes(key): vector for key, vector in zip(keys, vectors, strict=True)}

    def _save(self, vectors: Mapping[bytes, NDArray[np.float16]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".unfinished")
        ordered = sorted(vectors)
        keys = np.frombuffer(b"".join(ordered), np.uint8).reshape(-1, _KEY_BYTES)
        with unfinished.open("wb") as file:
            np.savez(file, keys=keys, vectors=np.stack([vectors[key] for key in ordered]))
        unfinished.replace(self._file)
        for other in self._folder.glob("*.npz"):
            if other != self._file:
                other.unlink()


def embedding_caches(folder: Path) -> list[EmbeddingCache]:
    """The caches of all encoders in this folder."""
    return [EmbeddingCache(folder, file.stem) for file in sorted(folder.glob("*.npz"))]


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]

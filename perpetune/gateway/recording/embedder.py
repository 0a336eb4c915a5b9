"""Embeddings of some of the requests, computed in the background after they were answered.

They are of the rows in the prediction log, and so of redacted texts if it redacts. A bounded number an hour is enough for
the test of drift and costs a core a few seconds an hour; the thread has the lowest priority, so that answers come first.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path

import numpy as np
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams
from perpetune.prediction_log.answers.embeddings import store_embeddings, unembedded
from perpetune.prediction_log.database import error_text

logger = logging.getLogger(__name__)

ROUND_SECONDS = 60.0
AT_ONCE = 4  # texts, so that a batch holds no core for long
MOST_CHARACTERS = 4000  # of a text: encoders read some hundred words
_LOWEST_PRIORITY = 19


@dataclass(frozen=True)
class LoadedEncoder:
    """The name under which embeddings are stored, and a function to unit vectors (texts, size)."""

    name: str
    encode: Callable[[Sequence[str]], np.ndarray]


class Embedder:
    """Embeds up to `per_hour` new requests of a task, in rounds of `round_seconds`.

    `load` returns the encoder, which is loaded once there is a request; what it raises stops the embedder, not the gateway.
    """

    def __init__(
        self,
        log: Engine,
        task: str,
        per_hour: int,
        load: Callable[[], LoadedEncoder],
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._log = log
        self._task = task
        self._most = ceil(per_hour * round_seconds / 3600)
        self._load = load
        self._round = round_seconds
        self._encoder: LoadedEncoder | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="embeddings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after the batch in work."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        if hasattr(os, "setpriority"):
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
            except OSError:  # a system that has no priority of a thread
                pass
        since = datetime.now(UTC)
        while not self._stopping.wait(self._round):
            try:
                since = self._embed_since(since)
            except SQLAlchemyError as fault:
                logger.warning("requests cannot be embedded now: %s", error_text(fault))
            except PerpetuneError as fault:
                logger.warning("requests are not embedded, so drift is tested without embeddings: %s", fault)
                return
            except Exception:  # an encoder may raise anything; answers go on
                logger.exception("requests are not embedded, so drift is tested without embeddings")
                return

    def _embed_since(self, since: datetime) -> datetime:
        """Embed the newest requests of this round and of the one before, whose last rows may have come late."""
        now = datetime.now(UTC)
        rows = unembedded(self._log, self._task, since - timedelta(seconds=self._round), self._most)
        if rows and self._encoder is None:
            self._encoder = self._load()
        for first in range(0, len(rows), AT_ONCE):
            if self._stopping.is_set() or self._encoder is None:
                break
            part = rows[first : first + AT_ONCE]
            vectors = self._encoder.encode([row.input[:MOST_CHARACTERS] for row in part])
            store_embeddings(
                self._log, self._encoder.name, {row.id: vector for row, vector in zip(part, vectors, strict=True)}
            )
        return now


def encoder_loader(params: BaseParams, assets: Path) -> Callable[[], LoadedEncoder]:
    """A function that loads the encoder. It raises PerpetuneError if its weights are not on this machine."""

    def load() -> LoadedEncoder:
        # Late: it imports torch, which a gateway in front of another server does not need for its answers.
        from perpetune.classifiers.encoder import load_encoder

        encoder = load_encoder(params, assets)
        return LoadedEncoder(encoder.digest[:16], encoder.encode)

    return load

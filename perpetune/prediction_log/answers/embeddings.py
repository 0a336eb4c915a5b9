"""Embeddings of inputs in the prediction log: a byte for each dimension, deleted with their requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.dialects import postgresql, sqlite

from perpetune.prediction_log.answers.day_window import DAY, evenly
from perpetune.prediction_log.database import writing
from perpetune.prediction_log.tables import embeddings, predictions

BATCH = 500  # ids in one query
_STEPS = 127  # of a coordinate of a unit vector, on either side of 0

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Unembedded:
    """A request without an embedding."""

    id: str
    input: str


@dataclass(frozen=True, eq=False)
class EmbeddedRequest:
    """A request of a version with the embedding of its input, of unit length."""

    id: str
    time: datetime
    input: str
    group: str | None
    vector: Vector


def unembedded(log: Engine, task: str, since: datetime, limit: int) -> list[Unembedded]:
    """The newest requests since a time that have no embedding."""
    rows = select(predictions.c.id, predictions.c.input).outerjoin(
        embeddings, embeddings.c.request_id == predictions.c.id
    )
    rows = rows.where(predictions.c.task == task, predictions.c.time >= since, embeddings.c.request_id.is_(None))
    with log.connect() as connection:
        return [
            Unembedded(row.id, row.input)
            for row in connection.execute(rows.order_by(predictions.c.time.desc()).limit(limit))
        ]


def store_embeddings(log: Engine, encoder: str, vectors: Mapping[str, NDArray[np.floating]]) -> None:
    """Store unit vectors by request; those of requests that are gone or have one already are skipped."""
    if not vectors:
        return
    names = list(vectors)
    insert = sqlite.insert if log.dialect.name == "sqlite" else postgresql.insert
    with writing(log) as connection:
        known = set(connection.execute(select(predictions.c.id).where(predictions.c.id.in_(names))).scalars())
        rows = [{"request_id": name, "encoder": encoder, "vector": _packed(vectors[name])} for name in names]
        kept = [row for row in rows if row["request_id"] in known]
        if kept:
            connection.execute(insert(embeddings).on_conflict_do_nothing(), kept)


def embedded_requests(
    log: Engine, task: str, version: str, encoder: str, since: datetime, *, newest: int, spread: int
) -> tuple[list[EmbeddedRequest], list[EmbeddedRequest]]:
    """The `newest` requests of a version with an embedding, and up to `spread` of all since a time at even distances.

    Both oldest first. If the newest ones are of less than a day, as many of a whole day are taken instead, at even
    distances: at night people ask for other things, and that comes again every night.
    """
    of_version = (predictions.c.task == task, predictions.c.version == version, embeddings.c.encoder == encoder)
    joined = predictions.join(embeddings, embeddings.c.request_id == predictions.c.id)
    ids = (
        select(predictions.c.id, predictions.c.time).select_from(joined).where(*of_version, predictions.c.time >= since)
    )
    with log.connect() as connection:
        found_rows = connection.execute(ids.order_by(predictions.c.time, predictions.c.id)).all()
    every = [row.id for row in found_rows]
    of_a_day = [row.id for row in found_rows if row.time > found_rows[-1].time - DAY]
    chosen = evenly(every, spread)
    last = evenly(of_a_day, newest) if len(of_a_day) > newest else every[-newest:]
    found = _requests(log, {*last, *chosen})
    return [found[name] for name in last if name in found], [found[name] for name in chosen if name in found]


def _requests(log: Engine, ids: set[str]) -> dict[str, EmbeddedRequest]:
    columns = (predictions.c.id, predictions.c.time, predictions.c.input, predictions.c.group, embeddings.c.vector)
    rows = select(*columns).join(embeddings, embeddings.c.request_id == predictions.c.id)
    wanted, found = sorted(ids), {}
    with log.connect() as connection:
        for first in range(0, len(wanted), BATCH):
            for row in connection.execute(rows.where(predictions.c.id.in_(wanted[first : first + BATCH]))):
                found[row.id] = EmbeddedRequest(row.id, row.time, row.input, row.group, _unpacked(row.vector))
    return found


def rounded(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Unit vectors (rows, size) as they come back from the log, so that others can be compared with those."""
    return np.stack([_unpacked(_packed(vector)) for vector in vectors]) if len(vectors) else vectors.astype(np.float32)


def _packed(vector: NDArray[np.floating]) -> bytes:
    return np.clip(np.round(vector * _STEPS), -_STEPS, _STEPS).astype(np.int8).tobytes()


def _unpacked(data: bytes) -> Vector:
    vector = np.frombuffer(data, dtype=np.int8).astype(np.float32)
    return vector / (float(np.linalg.norm(vector)) or 1.0)


def embedding_ids(log: Engine, request_ids: Sequence[str]) -> set[str]:
    """Which of these requests have an embedding."""
    with log.connect() as connection:
        rows = select(embeddings.c.request_id).where(embeddings.c.request_id.in_(request_ids))
        return set(connection.execute(rows).scalars())

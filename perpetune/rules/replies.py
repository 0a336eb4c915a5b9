"""Replies of a larger model, kept on disk: a second run over the same rows asks nothing."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.records import Message

REPLIES = Path("rules/replies.db")
"""In the home folder."""


@dataclass(frozen=True)
class Reply:
    """The text of a reply, the tokens read and written for it, and the seconds that it took."""

    text: str
    read: int
    written: int
    seconds: float


class ReplyCache:
    """Replies by what was asked: model, address and conversation."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> Reply | None:
        row = self._connection.execute("SELECT text, read, written, seconds FROM replies WHERE key = ?", (key,))
        found = row.fetchone()
        return Reply(*found) if found else None

    def put(self, key: str, model: str, reply: Reply, row: str) -> None:
        """Keep a reply at once, so that an interrupted run pays for nothing twice. `row` is the hash of the row."""
        values = (key, model, reply.text, reply.read, reply.written, reply.seconds, row)
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def count_of(self, rows: Collection[str]) -> int:
        """The number of replies about rows with these hashes; those of before rows were noted may be about any row."""
        return len(self._about(rows))

    def forget(self, rows: Collection[str]) -> None:
        """Delete the replies that `count_of` counts, and leave nothing of them in the file."""
        keys = self._about(rows)
        self._connection.execute("PRAGMA secure_delete = ON")
        with self._connection:
            self._connection.executemany("DELETE FROM replies WHERE key = ?", keys)
        self._connection.execute("VACUUM")

    def _about(self, rows: Collection[str]) -> list[tuple[str]]:
        found = self._connection.execute("SELECT key, row FROM replies")
        return [(key,) for key, row in found if row is None or row in rows]

    def mean_seconds(self, model: str) -> float | None:
        """How long this model's replies took on average; None if there are none."""
        [mean] = self._connection.execute("SELECT avg(seconds) FROM replies WHERE model = ?", (model,)).fetchone()
        return None if mean is None else float(mean)


@contextmanager
def reply_cache(path: Path) -> Iterator[ReplyCache]:
    """The cache in this file, created if needed. Raises PerpetuneError if it cannot be used."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=60)
        with closing(connection):
            connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL,"
                " read INTEGER NOT NULL, written INTEGER NOT NULL, seconds REAL NOT NULL, row TEXT)"
            )
            if not any(name == "row" for _, name, *_ in connection.execute("PRAGMA table_info(replies)")):
                connection.execute("ALTER TABLE replies ADD COLUMN row TEXT")
            yield ReplyCache(connection)
    except (OSError, sqlite3.Error) as fault:
        raise PerpetuneError(f"the replies cannot be kept: {fault}", where=str(path), do="delete the file") from None


def reply_key(url: str, model: str, conversation: Sequence[Message]) -> str:
    asked = [url, model, [message.model_dump(exclude_defaults=True) for message in conversation]]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()

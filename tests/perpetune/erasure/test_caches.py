"""Caches forget what they have of an erased row, and keep the rest."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from perpetune.curation.rows.dedup_key import row_hash
from perpetune.erasure.caches import forget_embeddings, forget_replies
from perpetune.erasure.selection import Selector, Targets
from perpetune.quality.embedding_cache import EmbeddingCache
from perpetune.quality.features import FOLDER
from perpetune.records import Example
from perpetune.rules.replies import REPLIES, Reply, reply_cache

ROWS = [Example(input=f"text {n}", output="", id=str(n), group=str(n), source="s") for n in range(3)]


def targets() -> Targets:
    found = Targets(Selector(id="1").selects)
    found.add_if_selected(ROWS)
    return found


def test_replies_about_the_row_are_deleted(tmp_path: Path) -> None:
    with reply_cache(tmp_path / REPLIES) as cache:
        for row in ROWS:
            cache.put(row.id, "m", Reply(f"reply {row.id}", 1, 1, 0.1), row_hash(row))
    assert forget_replies(tmp_path, targets(), dry_run=True) == 1
    assert forget_replies(tmp_path, targets(), dry_run=False) == 1
    with reply_cache(tmp_path / REPLIES) as cache:
        assert [cache.get(row.id) is not None for row in ROWS] == [True, False, True]
    assert b"reply 1" not in (tmp_path / REPLIES).read_bytes()


def test_replies_of_before_rows_were_noted_are_deleted(tmp_path: Path) -> None:
    (tmp_path / REPLIES).parent.mkdir()
    with sqlite3.connect(tmp_path / REPLIES) as database:
        columns = "key TEXT PRIMARY KEY, model TEXT, text TEXT, read INTEGER, written INTEGER, seconds REAL"
        database.execute(f"CREATE TABLE replies ({columns})")
        database.execute("INSERT INTO replies VALUES ('a', 'm', 'about somebody', 1, 1, 0.1)")
    database.close()
    with reply_cache(tmp_path / REPLIES) as cache:
        assert cache.get("a"), "until something is erased it is of use"
        cache.put("b", "m", Reply("new", 1, 1, 0.1), row_hash(ROWS[0]))
    assert forget_replies(tmp_path, targets(), dry_run=False) == 1
    with reply_cache(tmp_path / REPLIES) as cache:
        assert cache.get("a") is None and cache.get("b")


def test_embeddings_of_the_row_are_deleted(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / FOLDER, "digest")
    texts = [row.input for row in ROWS]
    embedded: list[str] = []

    def embed(new: object) -> np.ndarray:
        assert isinstance(new, list)
        embedded.extend(new)
        return np.ones((len(new), 2), np.float32)

    cache.encode(texts, embed)
    assert forget_embeddings(tmp_path, targets(), dry_run=True) == 1
    assert forget_embeddings(tmp_path, targets(), dry_run=False) == 1
    cache.encode(texts, embed)
    assert embedded == [*texts, "text 1"], "only that of the row was gone"

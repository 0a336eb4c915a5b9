"""A text is embedded once, and forgotten when it is no longer among the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perpetune.quality.embedding_cache import EmbeddingCache


class Counting:
    """Embeds a text as its length and its number of e's, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), text.count("e")] for text in texts], dtype=np.float64)


def test_a_second_run_embeds_only_new_texts(tmp_path: Path) -> None:
    embed = Counting()
    first = EmbeddingCache(tmp_path, "abc").encode(["one", "three"], embed)
    second = EmbeddingCache(tmp_path, "abc").encode(["three", "seven", "one", "three"], embed)
    assert embed.asked == ["one", "three", "seven"]
    assert second.tolist() == [[5, 2], [5, 2], [3, 1], [5, 2]]
    assert second[[2, 0]].tolist() == first.tolist()


def test_what_is_no_longer_among_the_rows_is_forgotten(tmp_path: Path) -> None:
    embed = Counting()
    EmbeddingCache(tmp_path, "abc").encode(["one", "three", "seven"], embed)
    EmbeddingCache(tmp_path, "abc").encode(["one"], embed, keep=["three"])
    EmbeddingCache(tmp_path, "abc").encode(["one", "three", "seven"], embed)
    assert embed.asked == ["one", "three", "seven", "seven"]
    EmbeddingCache(tmp_path, "abc").encode([], embed, keep=[])
    assert not list(tmp_path.iterdir()), "without rows nothing is kept"


def test_a_part_of_the_data_alone_forgets_nothing(tmp_path: Path) -> None:
    embed = Counting()
    EmbeddingCache(tmp_path, "abc").encode(["one", "three"], embed)
    EmbeddingCache(tmp_path, "abc").encode(["three"], embed)
    EmbeddingCache(tmp_path, "abc").encode(["one"], embed)
    assert embed.asked == ["one", "three"]


def test_another_encoder_has_a_cache_of_its_own_and_the_old_one_goes(tmp_path: Path) -> None:
    embed = Counting()
    EmbeddingCache(tmp_path, "abc").encode(["one"], embed)
    EmbeddingCache(tmp_path, "def").encode(["one"], embed)
    assert embed.asked == ["one", "one"]
    assert [file.name for file in tmp_path.iterdir()] == ["def.npz"]


def test_a_broken_cache_is_computed_again(tmp_path: Path) -> None:
    embed = Counting()
    EmbeddingCache(tmp_path, "abc").encode(["one"], embed)
    for content in (b"", b"PK\x03\x04 cut off", (tmp_path / "abc.npz").read_bytes()[:200]):
        (tmp_path / "abc.npz").write_bytes(content)
        assert EmbeddingCache(tmp_path, "abc").encode(["one"], embed).tolist() == [[3, 1]]
    assert embed.asked == ["one"] * 4


def test_without_texts_nothing_is_embedded(tmp_path: Path) -> None:
    embed = Counting()
    assert len(EmbeddingCache(tmp_path, "abc").encode([], embed)) == 0
    assert not embed.asked

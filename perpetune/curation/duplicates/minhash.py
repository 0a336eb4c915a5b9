"""Texts with mostly the same passages: MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., MMDS ch. 3).

Signatures come from rensa, which computes them in Rust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.duplicates.word_hashes import powers
from perpetune.curation.running.engine import IN_PROCESS, Engine

SIMILARITY = 0.75
"""Least Jaccard similarity of the sets of five-character shingles. Its estimate has a standard error of 0.04."""
SHINGLE = 5
MIN_CHARS = 40
"""Of shorter texts one word is too large a part."""
BANDS, BAND_ROWS = 20, 6
"""A pair with similarity 0.75 shares one of the bands in 98% of cases, with 0.9 nearly always."""
SEED = 7
_FACTORS = powers(BAND_ROWS + 1)[1:]


def similar_texts(texts: Sequence[str], engine: Engine = IN_PROCESS) -> Iterator[tuple[int, int]]:
    """Positions of pairs of canonical texts that are similar and have the same digits; a pair may come twice.

    Each text is compared with the first of its bucket in each band, not with all, so that the work stays linear when
    many are alike. Texts whose digits differ are forms filled in differently.
    """
    long = [position for position, text in enumerate(texts) if len(text) >= MIN_CHARS]
    if len(long) < 2:
        return
    signatures = np.empty((len(long), BANDS * BAND_ROWS), dtype=np.uint32)
    start = 0
    for batch in engine.batches(signatures_of, [texts[position] for position in long]):
        signatures[start : start + len(batch)] = batch
        start += len(batch)
    for one, other in _candidates(signatures):
        similarity = np.count_nonzero(signatures[one] == signatures[other]) / signatures.shape[1]
        if similarity >= SIMILARITY and _digits(texts[long[one]]) == _digits(texts[long[other]]):
            yield long[one], long[other]


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def signatures_of(texts: Sequence[str]) -> NDArray[np.uint32]:
    """A row of minimal hashes for each text."""
    import rensa  # late: only the split needs it

    shingles = [_shingles(text) for text in texts]
    return np.array(rensa.RMinHash.digests_from_token_sets(shingles, BANDS * BAND_ROWS, SEED), dtype=np.uint32)


def _shingles(text: str) -> list[str]:
    return list({text[start : start + SHINGLE] for start in range(len(text) - SHINGLE + 1)})


def _candidates(signatures: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Pairs of the first text of a bucket and another, over the buckets of all bands; each pair once."""
    seen: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = signatures[:, band * BAND_ROWS : (band + 1) * BAND_ROWS]
        keys = (part * _FACTORS).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        leaders = order[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]]
        for pair in zip(leaders[~is_first].tolist(), order[~is_first].tolist(), strict=True):
            if pair not in seen:
                seen.add(pair)
                yield pair

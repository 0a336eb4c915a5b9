"""Texts with mostly the same passages: MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., MMDS ch. 3).

Signatures come from rensa, which computes them in Rust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SIMILARITY = 0.75
"""Least Jaccard similarity of the sets of five-character shingles. Its estimate has a standard error of 0.04."""
SHINGLE = 5
MIN_CHARS = 40
"""Of shorter texts one word is too large a part."""
BANDS, BAND_ROWS = 20, 6
"""A pair with similarity 0.75 shares one of the bands in 98% of cases, with 0.9 nearly always."""
SEED = 7
_CHUNK = 20_000  # texts whose shingles are in memory at once


def similar_texts(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Positions of pairs of canonical texts that are similar and have the same digits; a pair may come twice.

    Each text is compared with the first of its bucket in each band, not with all, so that the work stays linear when
    many are alike. Texts whose digits differ are forms filled in differently.
    """
    long = [position for position, text in enumerate(texts) if len(text) >= MIN_CHARS]
    if len(long) < 2:
        return
    signatures = _signatures([texts[position] for position in long])
    digits = ["".join(filter(str.isdigit, texts[position])) for position in long]
    for one, other in _candidates(signatures):
        similarity = np.count_nonzero(signatures[one] == signatures[other]) / signatures.shape[1]
        if similarity >= SIMILARITY and digits[one] == digits[other]:
            yield long[one], long[other]


def _signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    import rensa  # late: only the split needs it

    chunks = (texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK))
    digests = [
        np.array(
            rensa.RMinHash.digests_from_token_sets([_shingles(text) for text in chunk], BANDS * BAND_ROWS, SEED),
            dtype=np.uint32,
        )
        for chunk in chunks
    ]
    return np.concatenate(digests)


def _shingles(text: str) -> list[str]:
    return list({text[start : start + SHINGLE] for start in range(len(text) - SHINGLE + 1)})


def _candidates(signatures: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Pairs of the first text of a bucket and another, over the buckets of all bands; each pair once."""
    seen: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * BAND_ROWS : (band + 1) * BAND_ROWS])
        keys = part.view([("", part.dtype)] * BAND_ROWS).ravel()
        _, first, bucket = np.unique(keys, return_index=True, return_inverse=True)
        leaders = first[bucket]
        for other in np.flatnonzero(leaders != np.arange(len(leaders))).tolist():
            pair = (int(leaders[other]), other)
            if pair not in seen:
                seen.add(pair)
                yield pair

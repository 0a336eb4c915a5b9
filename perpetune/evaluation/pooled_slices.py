"""Slices that are too small for a test, pooled with those of similar inputs.

Similar inputs share words, so that a model that changes on one changes on the others; harm to a rare label that is
confused with its neighbours is harm to the pool. Only inputs decide which slices are pooled, never answers: the test of a
pool then keeps its level. The similarity is the cosine of mean TF-IDF vectors, as Salton & Buckley (1988) weigh words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from perpetune.statistics.estimate import Floats

LARGE = 2  # times the least rows: a pool of so many takes no further slice, or one would take all
MAX_NAMED = 2  # members in the name of a pool of more than three

Members = tuple[str, ...]


def pools(inputs: Mapping[str, Sequence[str]], least: int) -> dict[str, Members]:
    """Pools of at least `least` rows, by name; `inputs` are those of each small slice, such as "label refund".

    The smallest pool is joined with the most similar one that is not large until all have enough rows. Labels are pooled
    with labels and sources with sources; those that are too few all together are left out.
    """
    kinds: dict[str, list[str]] = {}
    for name in sorted(inputs):
        kinds.setdefault(name.partition(" ")[0], []).append(name)
    joined = [pool for names in kinds.values() for pool in _of_one_kind({name: inputs[name] for name in names}, least)]
    return {pool_name(members): members for members in joined}


def pool_name(members: Members) -> str:
    """As in "labels lost card, refund and 4 more"."""
    kind = members[0].partition(" ")[0]
    own = [member.partition(" ")[2] for member in members]
    if len(own) == 1:
        return members[0]
    if len(own) > MAX_NAMED + 1:
        return f"{kind}s {', '.join(own[:MAX_NAMED])} and {len(own) - MAX_NAMED} more"
    return f"{kind}s {', '.join(own[:-1])} and {own[-1]}"


def _of_one_kind(inputs: Mapping[str, Sequence[str]], least: int) -> list[Members]:
    if sum(map(len, inputs.values())) < least:
        return []
    found: dict[Members, Floats] = {(name,): total for name, total in _word_totals(inputs).items()}
    rows: dict[Members, int] = {(name,): len(texts) for name, texts in inputs.items()}
    while min(rows.values()) < least:
        smallest = min(rows, key=lambda pool: (rows[pool], pool))
        others = [pool for pool in rows if pool != smallest]
        near = {pool: _cosine(found[pool], found[smallest]) for pool in others}
        few = [pool for pool in others if rows[pool] < LARGE * least] or others
        nearest = max(few, key=lambda pool: (near[pool], -rows[pool], pool))
        both = tuple(sorted((*smallest, *nearest)))
        found[both], rows[both] = found[smallest] + found[nearest], rows[smallest] + rows[nearest]
        for pool in (smallest, nearest):
            del found[pool], rows[pool]
    return sorted(rows)


def _word_totals(inputs: Mapping[str, Sequence[str]]) -> dict[str, Floats]:
    """The sum of the TF-IDF vectors of each slice's inputs, which has the direction of their mean."""
    texts = [text for some in inputs.values() for text in some]
    words = TfidfVectorizer(token_pattern=r"(?u)\w+", sublinear_tf=True)
    vectors = words.fit_transform([text or "_" for text in texts])
    ends = np.cumsum([len(some) for some in inputs.values()])
    parts = np.split(np.arange(len(texts)), ends[:-1])
    return {
        name: np.asarray(vectors[part].sum(axis=0), dtype=np.float64).ravel()
        for name, part in zip(inputs, parts, strict=True)
    }


def _cosine(one: Floats, other: Floats) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return round(float(one @ other) / lengths, 6) if lengths else 0.0  # ties must not depend on the order of rows

"""What changed in the inputs, for people: the requests farthest from all known examples, and words that came or went."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from perpetune.curation.text import shortened
from perpetune.monitoring.input_drift import InputRow, vectors_of
from perpetune.statistics.two_sample import Floats

FARTHEST = 5
WORDS = 8
LEAST_ROWS = 3  # that have a word, on both sides together
SURPRISE = 3.0  # standard errors by which the ratio of rows with a word must differ to be shown
_WORD = re.compile(r"[^\W\d_]{2,}")
_SHOWN = 160  # characters of a text


@dataclass(frozen=True)
class FarRequest:
    """A request, the known example nearest to it, and the cosine of their embeddings, or of their words if those are missing."""

    request: InputRow
    nearest: InputRow
    similarity: float


@dataclass(frozen=True)
class WordChange:
    """The ratio of requests and of known examples that have a word."""

    word: str
    requests: float
    examples: float


@dataclass(frozen=True)
class InputChange:
    """The requests that are farthest from all known examples, and the words whose frequency changed most."""

    farthest: tuple[FarRequest, ...] = ()
    words: tuple[WordChange, ...] = ()


def input_change(new: Sequence[InputRow], old: Sequence[InputRow]) -> InputChange:
    """Describe how the `new` inputs differ from the `old` ones; nothing if there are none."""
    if not new or not old:
        return InputChange()
    similarity = _similarity(new, old)
    nearest = similarity.argmax(axis=1)
    best = similarity[np.arange(len(new)), nearest]
    farthest = [
        FarRequest(new[place], old[int(nearest[place])], float(best[place]))
        for place in np.argsort(best, kind="stable")[:FARTHEST].tolist()
    ]
    return InputChange(tuple(farthest), _words_that_changed(new, old))


def _similarity(new: Sequence[InputRow], old: Sequence[InputRow]) -> Floats:
    """Cosines (new, old)."""
    ours, theirs = vectors_of(new), vectors_of(old)
    if ours is not None and theirs is not None:
        return np.asarray(ours @ theirs.T, dtype=np.float64)
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        features = vectorizer.fit_transform([row.text for row in (*new, *old)])
    except ValueError:  # no text has a word
        return np.zeros((len(new), len(old)))
    return np.asarray((features[: len(new)] @ features[len(new) :].T).toarray(), dtype=np.float64)


def _words_that_changed(new: Sequence[InputRow], old: Sequence[InputRow]) -> tuple[WordChange, ...]:
    """The most surprising first, by a test of two ratios."""
    ours, theirs = _rows_with(new), _rows_with(old)
    found = []
    for word in sorted(ours.keys() | theirs.keys()):
        rows = ours[word] + theirs[word]
        now, then = ours[word] / len(new), theirs[word] / len(old)
        pooled = rows / (len(new) + len(old))
        error = sqrt(pooled * (1 - pooled) * (1 / len(new) + 1 / len(old)))
        if rows >= LEAST_ROWS and error and abs(now - then) >= SURPRISE * error:
            found.append((-abs(now - then) / error, WordChange(word, now, then)))
    return tuple(change for _, change in sorted(found, key=lambda pair: pair[0])[:WORDS])


def _rows_with(rows: Sequence[InputRow]) -> Counter[str]:
    return Counter(word for row in rows for word in set(_WORD.findall(row.text.casefold())))


def as_html(change: InputChange, *, with_texts: bool) -> str:
    """Two tables; without texts, requests and examples are named by their ids."""
    return "\n".join(part for part in (_farthest_table(change, with_texts=with_texts), _words_table(change)) if part)


def _farthest_table(change: InputChange, *, with_texts: bool) -> str:
    if not change.farthest:
        return ""
    rows = [
        f"<tr><td>{_named(each.request, with_texts)}</td><td>{_named(each.nearest, with_texts)}</td>"
        f"<td>{each.similarity:.2f}</td></tr>"
        for each in change.farthest
    ]
    head = "<tr><th>request</th><th>nearest known example</th><th>similarity</th></tr>"
    return f"<h2>Requests farthest from all known examples</h2><table>{head}{''.join(rows)}</table>"


def _words_table(change: InputChange) -> str:
    if not change.words:
        return ""
    rows = [
        f"<tr><td>{html.escape(each.word)}</td><td>{each.requests:.1%}</td><td>{each.examples:.1%}</td></tr>"
        for each in change.words
    ]
    head = "<tr><th>word</th><th>of requests</th><th>of known examples</th></tr>"
    return f"<h2>Words that became more or less frequent</h2><table>{head}{''.join(rows)}</table>"


def _named(row: InputRow, with_texts: bool) -> str:
    return html.escape(shortened(row.text, _SHOWN) if with_texts and row.text.strip() else row.id)

"""The language of a text (lingua: n-gram models, https://github.com/pemistahl/lingua-py, Apache-2.0)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perpetune.errors import PerpetuneError

Confidences = Mapping[str, float]
"""By ISO 639-1 code in lower case; they add up to 1."""
MIX_ROWS = 20_000
"""Texts that the mix of languages is estimated on, at most."""
_ROUNDS = 200
_MORE = 0.1  # texts of each language


def confidences(texts: Sequence[str]) -> list[Confidences]:
    """How sure each language is of each text.

    With the trigrams only (lingua's "low accuracy"), which on texts of 20 letters and more decide the same five times as
    fast and in a tenth of the memory. Raises PerpetuneError if lingua is not installed.
    """
    _require_lingua()
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
    return [
        {each.language.iso_code_639_1.name.lower(): each.value for each in found}
        for found in detector.compute_language_confidence_values_in_parallel(list(texts))
    ]


def language_mix(confidences: NDArray[np.float32]) -> NDArray[np.float64]:
    """The ratio of each language among the texts, (languages,), from confidences of shape (texts, languages).

    The detector takes all languages to be equally frequent, so that of English texts of a few words every thirtieth is
    surely Tagalog. The ratios under which these confidences are likeliest are found by expectation maximisation (Saerens,
    Latinne and Decaestecker 2002, Neural Computation 14:21), with a tenth of a text more of each language, so that
    none is impossible and few texts change little.
    """
    seen = confidences[:MIX_ROWS].astype(np.float64)
    count = seen.shape[1]
    mix = np.full(count, 1 / count)
    for _ in range(_ROUNDS):
        better = (with_mix(seen, mix).sum(axis=0) + _MORE) / (len(seen) + _MORE * count)
        if np.abs(better - mix).max(initial=0.0) < 1e-6:
            break
        mix = better
    return mix


def with_mix(confidences: NDArray[np.floating], mix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The confidences if languages are as frequent as in the mix, (texts, languages)."""
    weighed = confidences * mix
    return np.asarray(weighed / np.maximum(weighed.sum(axis=1, keepdims=True), 1e-300))


def known_languages() -> frozenset[str]:
    """The codes of the languages that lingua distinguishes. Raises PerpetuneError if lingua is not installed."""
    _require_lingua()
    from lingua import Language

    return frozenset(language.iso_code_639_1.name.lower() for language in Language.all())


def _require_lingua() -> None:
    if importlib.util.find_spec("lingua") is None:
        raise PerpetuneError(
            "language.keep is set, but lingua is not installed",
            where="params.yaml",
            do="pip install 'perpetune[language]', or set language.keep: null",
        )

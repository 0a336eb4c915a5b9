"""The language of a text (lingua: n-gram models, https://github.com/pemistahl/lingua-py, Apache-2.0)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from perpetune.errors import PerpetuneError

Confidences = Mapping[str, float]
"""By ISO 639-1 code in lower case; they add up to 1."""


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

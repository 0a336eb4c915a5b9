"""Metrics of a free text against the expected one, in [0, 1]."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

# Chinese characters and kana are written without spaces: each is one word (as in MLQA, Lewis et al. 2020).
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_TOKEN = re.compile(rf"[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+")
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def tidy(text: str) -> str:
    """The text with collapsed whitespace, in Unicode NFC."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def exact_match(expected: str, answer: str) -> float:
    """1 if the texts are equal up to whitespace, else 0."""
    return float(tidy(expected) == tidy(answer))


def same_label(expected: str, answer: str) -> float:
    """1 if the labels are equal up to case and whitespace, else 0."""
    return float(tidy(expected).casefold() == tidy(answer).casefold())


def token_f1(expected: str, answer: str) -> float:
    """The token F1 of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250).

    Case, punctuation and English articles are ignored. If a text has no words left, the score is 1 if neither has, else
    0 (as in SQuAD 2.0).
    """
    expected_tokens, tokens = squad_tokens(expected), squad_tokens(answer)
    if not expected_tokens or not tokens:
        return float(expected_tokens == tokens)
    shared = sum((Counter(expected_tokens) & Counter(tokens)).values())
    return 2 * shared / (len(expected_tokens) + len(tokens))


def squad_tokens(text: str) -> list[str]:
    """The tokens of SQuAD's scorer."""
    lowered = tidy(text).lower()
    unpunctuated = "".join(character for character in lowered if not unicodedata.category(character).startswith("P"))
    return _TOKEN.findall(_ARTICLE.sub(" ", unpunctuated))


def rouge_l(expected: str, answer: str) -> float:
    """The ROUGE-L F-measure (Lin 2004, aclanthology.org/W04-1013)."""
    return float(_rouge().score(expected, answer)["rougeL"].fmeasure)


class _Words:
    """A tokenizer for letters of every script; rouge-score's default keeps only a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(tidy(text).lower())


@cache
def _rouge() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # late: it imports NLTK, which takes a second

    return RougeScorer(["rougeL"], tokenizer=_Words())


TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "token_f1": token_f1,
    "exact_match": exact_match,
    "rouge_l": rouge_l,
}

"""How close a free text is to the wanted one, row by row, in [0, 1]."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

# Chinese characters and kana are written without spaces: each is a word of its own (as in MLQA, Lewis et al. 2020).
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_TOKEN = re.compile(rf"[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+")
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def tidy(text: str) -> str:
    """The text with whitespace collapsed and canonical Unicode, so that equal-looking texts are equal."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def exact_match(wanted: str, answer: str) -> float:
    """1 where the texts are equal up to whitespace, else 0."""
    return float(tidy(wanted) == tidy(answer))


def same_label(wanted: str, answer: str) -> float:
    """1 where two labels are equal up to case and whitespace, else 0: people who label write them as they like."""
    return float(tidy(wanted).casefold() == tidy(answer).casefold())


def token_f1(wanted: str, answer: str) -> float:
    """The F1 of the words that both share, as SQuAD counts it (Rajpurkar et al. 2016, arXiv:1606.05250).

    Case, punctuation and English articles do not count. Where either text has no word left, the
    score is 1 if neither has and 0 otherwise (the rule of SQuAD 2.0).
    """
    wanted_tokens, tokens = squad_tokens(wanted), squad_tokens(answer)
    if not wanted_tokens or not tokens:
        return float(wanted_tokens == tokens)
    shared = sum((Counter(wanted_tokens) & Counter(tokens)).values())
    return 2 * shared / (len(wanted_tokens) + len(tokens))


def squad_tokens(text: str) -> list[str]:
    """The words of a text as SQuAD's scorer sees them."""
    lowered = tidy(text).lower()
    unpunctuated = "".join(character for character in lowered if not unicodedata.category(character).startswith("P"))
    return _TOKEN.findall(_ARTICLE.sub(" ", unpunctuated))


def rouge_l(wanted: str, answer: str) -> float:
    """The F-measure of ROUGE-L, the longest common subsequence of words (Lin 2004, aclanthology.org/W04-1013)."""
    return float(_rouge().score(wanted, answer)["rougeL"].fmeasure)


class _Words:
    """rouge-score's tokenizer with letters of every script, where its own drops all but a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(tidy(text).lower())


@cache
def _rouge() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # late: its NLTK takes a second

    return RougeScorer(["rougeL"], tokenizer=_Words())


TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "token_f1": token_f1,
    "exact_match": exact_match,
    "rouge_l": rouge_l,
}

"""Which log-probabilities of tokens tell how likely each label is, and which are not known yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Labels left unread weigh less than this share together: no probability is off by more.
TOLERANCE = 1e-3
# vLLM gives the log-probabilities of at most so many named tokens (its MAX_LOGPROB_TOKEN_IDS).
MAX_LOGPROB_TOKENS = 128
# Up to so many different tokens are asked for at every step of an answer; of more, only those that may come next.
_FEW_TOKENS = 32

Prefix = tuple[int, ...]
Known = dict[Prefix, Mapping[int, float]]


@dataclass(frozen=True)
class LogprobRequest:
    """Go on from each of `beginnings` for `max_tokens`, telling the log-probabilities of `tokens` at each step."""

    beginnings: tuple[Prefix, ...]
    tokens: tuple[int, ...]
    max_tokens: int


class LabelTree:
    """Labels as tokens, each closed by the end-of-turn token, so that none begins another.

    log p(label) is the sum over its tokens of log p(token | prompt, tokens before), as
    `perpetune.inference.label_scoring` has it: over the whole vocabulary, not among what a grammar would allow. What is
    known of these sums bounds them from above, and the labels that cannot matter are read no further.
    """

    def __init__(self, tails: Sequence[Sequence[int]]) -> None:
        self._paths = [tuple((tuple(tail[:position]), token) for position, token in enumerate(tail)) for tail in tails]
        following: dict[Prefix, dict[int, None]] = {}
        below: dict[Prefix, dict[int, None]] = {}
        self._longest: dict[Prefix, int] = {}
        for tail, path in zip(tails, self._paths, strict=True):
            for beginning, token in path:
                following.setdefault(beginning, {})[token] = None
                below.setdefault(beginning, {}).update(dict.fromkeys(tail[len(beginning) :]))
                self._longest[beginning] = max(self._longest.get(beginning, 0), len(tail) - len(beginning))
        self._following = {beginning: tuple(tokens) for beginning, tokens in following.items()}
        self._below = {beginning: tuple(tokens) for beginning, tokens in below.items()}
        self._margin = math.log(TOLERANCE / len(tails))

    def widest(self) -> int:
        """The most tokens between which labels part at one place."""
        return max(map(len, self._following.values()))

    def learn(self, known: Known, beginning: Prefix, steps: Iterable[tuple[int, Mapping[int, float]]]) -> None:
        """Add what was told from a beginning on: at each step the token written, and log-probabilities by token."""
        for written, found in steps:
            following = self._following.get(beginning)
            if following is None or not all(token in found for token in following):
                return
            known[beginning] = found
            beginning = (*beginning, written)

    def log_probabilities(self, known: Known) -> tuple[list[float], list[Prefix]]:
        """An upper bound of each label's, exact where its every token is known; and the beginnings to read on from."""
        bounds, unread = [], []
        for path in self._paths:
            total, stop = 0.0, None
            for beginning, token in path:
                here = known.get(beginning)
                if here is None:
                    stop = beginning
                    break
                total += here[token]
            bounds.append(total)
            unread.append(stop)
        floor = max(bounds) + self._margin
        opened = (stop for bound, stop in zip(bounds, unread, strict=True) if stop is not None and bound >= floor)
        return bounds, list(dict.fromkeys(opened))

    def asks(self, beginnings: Sequence[Prefix]) -> list[LogprobRequest]:
        """As few questions as the limit on named tokens allows."""
        groups: list[tuple[list[Prefix], dict[int, None]]] = []
        for beginning in beginnings:
            following = dict.fromkeys(self._following[beginning])
            if not groups or len(groups[-1][1] | following) > MAX_LOGPROB_TOKENS:
                groups.append(([], {}))
            groups[-1][0].append(beginning)
            groups[-1][1].update(following)
        return [self._ask(tuple(together), tuple(following)) for together, following in groups]

    def _ask(self, beginnings: tuple[Prefix, ...], following: tuple[int, ...]) -> LogprobRequest:
        below = dict.fromkeys(token for beginning in beginnings for token in self._below[beginning])
        if len(below) > _FEW_TOKENS:
            return LogprobRequest(beginnings, following, 1)
        return LogprobRequest(beginnings, tuple(below), max(self._longest[beginning] for beginning in beginnings))


def softmax(log_probabilities: Sequence[float]) -> list[float]:
    """Softmax: they sum to 1."""
    highest = max(log_probabilities)
    weights = [math.exp(value - highest) for value in log_probabilities]
    total = sum(weights)
    return [weight / total for weight in weights]

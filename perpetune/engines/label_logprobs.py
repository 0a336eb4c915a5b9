"""Label probabilities from the token log-probabilities of an inference server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# The unread labels together have at most this probability, which bounds the error.
TOLERANCE = 1e-3
# vLLM returns the log-probabilities of at most this many named tokens (its MAX_LOGPROB_TOKEN_IDS).
MAX_LOGPROB_TOKENS = 128
# Up to this many tokens are requested at every step of an answer; of more, only the possible next ones.
_MAX_TOKENS_EVERY_STEP = 32

Prefix = tuple[int, ...]
Known = dict[Prefix, Mapping[int, float]]


@dataclass(frozen=True)
class LogprobRequest:
    """Generate `max_tokens` from each of `prefixes`, with the log-probabilities of `tokens` at each step."""

    prefixes: tuple[Prefix, ...]
    tokens: tuple[int, ...]
    max_tokens: int


class LabelTree:
    """The labels' tokens, each label closed by the end-of-turn token, so that none is a prefix of another.

    log p(label) is the sum of log p(token | prompt, tokens before) over the whole vocabulary, as in
    `perpetune.inference.labels.label_scoring`, not over the tokens that a grammar would allow. Partial sums are upper bounds,
    and labels below the tolerance are not read further.
    """

    def __init__(self, tails: Sequence[Sequence[int]]) -> None:
        self._paths = [tuple((tuple(tail[:position]), token) for position, token in enumerate(tail)) for tail in tails]
        next_tokens: dict[Prefix, dict[int, None]] = {}
        descendants: dict[Prefix, dict[int, None]] = {}
        self._longest: dict[Prefix, int] = {}
        for tail, path in zip(tails, self._paths, strict=True):
            for prefix, token in path:
                next_tokens.setdefault(prefix, {})[token] = None
                descendants.setdefault(prefix, {}).update(dict.fromkeys(tail[len(prefix) :]))
                self._longest[prefix] = max(self._longest.get(prefix, 0), len(tail) - len(prefix))
        self._next_tokens = {prefix: tuple(tokens) for prefix, tokens in next_tokens.items()}
        self._descendants = {prefix: tuple(tokens) for prefix, tokens in descendants.items()}
        self._margin = math.log(TOLERANCE / len(tails))

    def max_children(self) -> int:
        """The largest number of different tokens that can follow one prefix."""
        return max(map(len, self._next_tokens.values()))

    def add(self, known: Known, prefix: Prefix, steps: Iterable[tuple[int, Mapping[int, float]]]) -> None:
        """Add the steps generated after `prefix`: at each, the token written, and log-probabilities by token."""
        for written, found in steps:
            next_tokens = self._next_tokens.get(prefix)
            if next_tokens is None or not all(token in found for token in next_tokens):
                return
            known[prefix] = found
            prefix = (*prefix, written)

    def log_probabilities(self, known: Known) -> tuple[list[float], list[Prefix]]:
        """An upper bound for each label, exact if all of its tokens are known, and the prefixes to continue from."""
        bounds, unread = [], []
        for path in self._paths:
            total, stop = 0.0, None
            for prefix, token in path:
                here = known.get(prefix)
                if here is None:
                    stop = prefix
                    break
                total += here[token]
            bounds.append(total)
            unread.append(stop)
        floor = max(bounds) + self._margin
        opened = (stop for bound, stop in zip(bounds, unread, strict=True) if stop is not None and bound >= floor)
        return bounds, list(dict.fromkeys(opened))

    def requests(self, prefixes: Sequence[Prefix]) -> list[LogprobRequest]:
        """Group prefixes into as few requests as the limit on named tokens allows."""
        groups: list[tuple[list[Prefix], dict[int, None]]] = []
        for prefix in prefixes:
            next_tokens = dict.fromkeys(self._next_tokens[prefix])
            if not groups or len(groups[-1][1] | next_tokens) > MAX_LOGPROB_TOKENS:
                groups.append(([], {}))
            groups[-1][0].append(prefix)
            groups[-1][1].update(next_tokens)
        return [self._request(tuple(together), tuple(next_tokens)) for together, next_tokens in groups]

    def _request(self, prefixes: tuple[Prefix, ...], next_tokens: tuple[int, ...]) -> LogprobRequest:
        descendants = dict.fromkeys(token for prefix in prefixes for token in self._descendants[prefix])
        if len(descendants) > _MAX_TOKENS_EVERY_STEP:
            return LogprobRequest(prefixes, next_tokens, 1)
        return LogprobRequest(prefixes, tuple(descendants), max(self._longest[prefix] for prefix in prefixes))


def softmax(log_probabilities: Sequence[float]) -> list[float]:
    """The probabilities, which sum to 1."""
    highest = max(log_probabilities)
    weights = [math.exp(value - highest) for value in log_probabilities]
    total = sum(weights)
    return [weight / total for weight in weights]

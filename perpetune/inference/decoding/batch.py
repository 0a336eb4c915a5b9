"""Autoregressive decoding with continuous batching (Yu et al., "Orca", OSDI 2022)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import BadSchema, Delta, GenerationConfig
from perpetune.generation.stop_sequences import StopFilter
from perpetune.generation.token_alignment import AlignedLogprobs
from perpetune.inference.caches.padded_cache import prefill
from perpetune.inference.caches.prefix_cache import CachedPrefix
from perpetune.inference.caches.row_cache import prefill_alone
from perpetune.inference.decoding.detokenizer import Detokenizer
from perpetune.inference.decoding.json_grammar import Grammar
from perpetune.inference.decoding.sampling import Sampler
from perpetune.inference.decoding.token_logprobs import TokenTexts, token_logprob
from perpetune.inference.not_a_number import NotANumber


@dataclass(frozen=True, eq=False)
class DecodeRequest:
    """One answer to generate: the prompt's tokens, the answer's index among `n`, and callbacks."""

    prompt: Sequence[int]
    index: int
    generation: GenerationConfig
    grammar: Grammar | None
    on_delta: Callable[[Delta], None]
    on_end: Callable[[Answer], None]
    on_error: Callable[[Exception], None]
    is_cancelled: Callable[[], bool]


class DecodeBatch:
    """The sequences being decoded by a model, up to one of `stops`. If a step fails, all of them are lost.

    With `alone` each sequence has a state of its own, for models and lengths that no batch may pad.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        stops: Collection[int],
        *,
        alone: bool = False,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._stops = frozenset(stops)
        self._alone = alone
        self._rows: list[_Sequence] = []
        self._cache: Any = None  # a PaddedCache, or a RowCache of sequences alone
        self._logits = torch.empty(0)

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def add(self, requests: Sequence[DecodeRequest], prefix: CachedPrefix) -> None:
        """Prefill the requests' prompts, which all begin with `prefix`; equal prompts are computed once."""
        began = time.perf_counter()
        prompts = list(dict.fromkeys(tuple(request.prompt) for request in requests))
        cache, logits = self._prefill(prefix, prompts)
        positions = [prompts.index(tuple(request.prompt)) for request in requests]
        if len(positions) > len(prompts):
            cache.keep(positions)
            logits = logits[positions]
        if self._cache is None:
            self._cache, self._logits = cache, logits
        else:
            self._cache.append(cache)
            self._logits = torch.cat([self._logits, logits])
        seconds = (time.perf_counter() - began) / len(requests)
        self._rows += [_Sequence(request, self._tokenizer, self._stops, seconds) for request in requests]

    def _prefill(self, prefix: CachedPrefix, prompts: Sequence[Sequence[int]]) -> tuple[Any, torch.Tensor]:
        if self._alone:
            return prefill_alone(self._model, prompts)
        return prefill(self._model, prefix, prompts, self._tokenizer.pad_token_id)

    @torch.inference_mode()
    def step(self) -> None:
        """Generate one token of each sequence; finished and cancelled ones are removed."""
        self._keep([position for position, row in enumerate(self._rows) if not row.request.is_cancelled()])
        if not self._rows:
            return
        began = time.perf_counter()
        tokens = self._next_tokens()
        continuing = [
            position for position, row in enumerate(self._rows) if row.fault is None and row.append(tokens[position])
        ]
        ended_rows = [row for position, row in enumerate(self._rows) if position not in set(continuing)]
        count = len(self._rows)
        self._keep(continuing)
        if self._rows and self._cache:
            ids = torch.tensor([[tokens[position]] for position in continuing], device=self._logits.device)
            self._logits = self._cache.forward(self._model, ids, torch.ones_like(ids))
        seconds = (time.perf_counter() - began) / count
        for row in (*ended_rows, *self._rows):
            row.seconds += seconds
        for row in ended_rows:
            row.finish()

    def _keep(self, rows: Sequence[int]) -> None:
        if len(rows) == len(self._rows):
            return
        self._rows = [self._rows[position] for position in rows]
        if self._cache and rows:
            self._cache.keep(rows)
            self._logits = self._logits[list(rows)]
        else:
            self._cache = None

    def _next_tokens(self) -> list[int]:
        tokens: list[int] = self._logits.argmax(-1).tolist()
        is_nan: list[bool] = self._logits.isnan().any(-1).tolist()
        for position, row in enumerate(self._rows):
            logits = self._logits[position]
            if is_nan[position]:
                row.fault = NotANumber("the next token's scores")
                continue
            if not row.is_greedy:
                try:
                    tokens[position] = row.choose(logits)
                except BadSchema as fault:  # a schema may prove too complex only here
                    row.fault = fault
                    continue
            if row.request.generation.top_logprobs is not None:
                row.record_logprob(tokens[position], logits)
        self._add_likelihoods(tokens)
        return tokens

    def _add_likelihoods(self, tokens: Sequence[int]) -> None:
        """Add each token's log-probability, before penalties and grammar, to its sequence's."""
        chosen = torch.tensor(tokens, device=self._logits.device)[:, None]
        logits = self._logits.float()
        found = logits.gather(-1, chosen)[:, 0] - logits.logsumexp(-1)
        for row, token, value in zip(self._rows, tokens, found.tolist(), strict=True):
            row.add_likelihood(token, value)


class _Sequence:
    """A sequence being decoded."""

    def __init__(
        self, request: DecodeRequest, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int], seconds: float
    ) -> None:
        self.request = request
        self.seconds = seconds
        self.fault: Exception | None = None
        self._tokenizer = tokenizer
        self._stops = stops
        self._sampler = Sampler(request.generation, request.index)
        self._detokenizer = Detokenizer(tokenizer)
        self._text = StopFilter(request.generation.stop)
        self._written = 0
        self._counted = 0
        self._finish_reason = "stop"
        self._log_likelihood, self._likely = 0.0, 0
        self._logprobs: list[TokenLogprob] = []
        self._token_texts = TokenTexts()
        self._aligned = AlignedLogprobs()

    @property
    def is_greedy(self) -> bool:
        return self.request.grammar is None and self._sampler.is_greedy

    def choose(self, logits: torch.Tensor) -> int:
        if self.request.grammar is not None:
            logits = self.request.grammar.allow(logits)
        return self._sampler.choose(logits)

    def record_logprob(self, token: int, logits: torch.Tensor) -> None:
        """Record the token's log-probability, before penalties. The end-of-turn token is not part of the answer."""
        if token in self._stops:
            return
        top = self.request.generation.top_logprobs or 0
        self._token_texts.add(token_logprob(self._tokenizer, token, logits, top))

    def add_likelihood(self, token: int, value: float) -> None:
        """Add a token's log-probability; the end-of-turn token is not part of the answer."""
        if token not in self._stops:
            self._log_likelihood += value
            self._likely += 1

    @property
    def _likelihood(self) -> float | None:
        """The geometric mean of the tokens' probabilities; None of an empty answer."""
        mean = self._log_likelihood / self._likely if self._likely else math.nan
        return min(1.0, math.exp(mean)) if math.isfinite(mean) else None

    def append(self, token: int) -> bool:
        """Append a token; returns whether the sequence continues."""
        self._written += 1
        if token in self._stops:
            return self._end()
        self._sampler.record(token)
        if self.request.grammar is not None:
            self.request.grammar.accept(token)
        self._add_text(self._detokenizer.add(token))
        if self._text.stopped or (self.request.grammar is not None and self.request.grammar.is_complete):
            return self._end()
        if self._written == self.request.generation.max_tokens:
            self._finish_reason = "length"
            return self._end()
        return True

    def finish(self) -> None:
        if self.fault is None:
            self.request.on_end(self._answer())
        else:
            self.request.on_error(self.fault)

    def _answer(self) -> Answer:
        return Answer(
            text=self._text.text,
            confidence=None,
            probabilities=None,
            prompt_tokens=len(self.request.prompt),
            completion_tokens=self._written,
            finish_reason=self._finish_reason,
            seconds=self.seconds,
            logprobs=None if self.request.generation.top_logprobs is None else tuple(self._logprobs),
            likelihood=self._likelihood,
        )

    def _end(self) -> bool:
        if not self._text.stopped:
            self._add_text(self._detokenizer.rest())
            self._aligned.extend(self._token_texts.rest())
            self._send(self._text.end(), is_end=True)
        return False

    def _add_text(self, piece: str) -> None:
        self._aligned.extend(self._token_texts.text(piece))
        released = self._text.add(piece)
        self._send(released, is_end=self._text.stopped)

    def _send(self, piece: str, *, is_end: bool = False) -> None:
        """Send a piece of text with the log-probabilities of its tokens, if there is either."""
        scored = self.request.generation.top_logprobs is not None
        aligned = self._aligned.take(self._text, final=is_end) if scored and (piece or is_end) else ()
        self._logprobs += aligned
        if not piece and not aligned:
            return
        tokens, self._counted = self._written - self._counted, self._written
        self.request.on_delta(
            Delta(
                self.request.index,
                piece,
                aligned if scored else None,
                tokens=tokens,
                prompt_tokens=len(self.request.prompt),
            )
        )

"""Writing answers token by token, many at once: each leaves when it has ended, and others join meanwhile.

Continuous batching: Yu et al., "Orca", OSDI 2022.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import BadSchema, Delta, GenerationConfig
from perpetune.generation.stop_sequences import StopFilter
from perpetune.inference.detokenizer import Detokenizer
from perpetune.inference.json_grammar import Grammar
from perpetune.inference.padded_cache import PaddedCache, prefill
from perpetune.inference.prefix_cache import CachedPrefix
from perpetune.inference.sampling import Sampler


@dataclass(frozen=True, eq=False)
class DecodeRequest:
    """What one answer is written by: its prompt in tokens, its number among those to the prompt, who hears of it."""

    prompt: Sequence[int]
    index: int
    generation: GenerationConfig
    grammar: Grammar | None
    on_delta: Callable[[Delta], None]
    ended: Callable[[Answer], None]
    failed: Callable[[Exception], None]
    is_cancelled: Callable[[], bool]


class DecodeBatch:
    """The answers that a model is writing. Where a step fails, all of them are lost."""

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._rows: list[_Row] = []
        self._read: PaddedCache | None = None
        self._logits = torch.empty(0)

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def join(self, drafts: Sequence[DecodeRequest], beginning: CachedPrefix) -> None:
        """Read the prompts of the drafts, all of which go on behind the beginning; equal prompts are read once."""
        began = time.perf_counter()
        prompts = list(dict.fromkeys(tuple(draft.prompt) for draft in drafts))
        read, logits = prefill(self._model, beginning, prompts, self._tokenizer.pad_token_id)
        positions = [prompts.index(tuple(draft.prompt)) for draft in drafts]
        if len(positions) > len(prompts):
            read.keep(positions)
            logits = logits[positions]
        if self._read is None:
            self._read, self._logits = read, logits
        else:
            self._read.join(read)
            self._logits = torch.cat([self._logits, logits])
        seconds = (time.perf_counter() - began) / len(drafts)
        self._rows += [_Row(draft, self._tokenizer, seconds) for draft in drafts]

    @torch.inference_mode()
    def step(self) -> None:
        """Write a token of each answer. Those that have ended or were given up leave."""
        self._leave([position for position, row in enumerate(self._rows) if not row.draft.is_cancelled()])
        if not self._rows:
            return
        began = time.perf_counter()
        tokens = self._choose()
        going_on = [
            position for position, row in enumerate(self._rows) if row.fault is None and row.write(tokens[position])
        ]
        leaving = [row for position, row in enumerate(self._rows) if position not in set(going_on)]
        writing = len(self._rows)
        self._leave(going_on)
        if self._rows and self._read:
            ids = torch.tensor([[tokens[position]] for position in going_on], device=self._logits.device)
            self._logits = self._read.read(self._model, ids, torch.ones_like(ids))
        seconds = (time.perf_counter() - began) / writing
        for row in (*leaving, *self._rows):
            row.seconds += seconds
        for row in leaving:
            row.leave()

    def _leave(self, staying: Sequence[int]) -> None:
        if len(staying) == len(self._rows):
            return
        self._rows = [self._rows[position] for position in staying]
        if self._read and staying:
            self._read.keep(staying)
            self._logits = self._logits[list(staying)]
        else:
            self._read = None

    def _choose(self) -> list[int]:
        tokens: list[int] = self._logits.argmax(-1).tolist()
        for position, row in enumerate(self._rows):
            logits = self._logits[position]
            if not row.takes_likeliest:
                try:
                    tokens[position] = row.choose(logits)
                except BadSchema as fault:  # it may show only here that a schema is too complex
                    row.fault = fault
                    continue
            if row.draft.generation.top_logprobs is not None:
                row.weigh(tokens[position], logits)
        return tokens


class _Row:
    """An answer so far."""

    def __init__(self, draft: DecodeRequest, tokenizer: PreTrainedTokenizerBase, seconds: float) -> None:
        self.draft = draft
        self.seconds = seconds
        self.fault: BadSchema | None = None
        self._tokenizer = tokenizer
        self._sampler = Sampler(draft.generation, draft.index)
        self._pieces = Detokenizer(tokenizer)
        self._text = StopFilter(draft.generation.stop)
        self._written = 0
        self._finish_reason = "stop"
        self._weighed: list[TokenLogprob] = []
        self._told = 0

    @property
    def takes_likeliest(self) -> bool:
        return self.draft.grammar is None and self._sampler.is_greedy

    def choose(self, logits: torch.Tensor) -> int:
        if self.draft.grammar is not None:
            logits = self.draft.grammar.allow(logits)
        return self._sampler.choose(logits)

    def weigh(self, token: int, logits: torch.Tensor) -> None:
        """Note the token's log probability as the model has it. The end of a turn is no part of the answer."""
        if token == self._tokenizer.eos_token_id:
            return
        likely = logits.log_softmax(-1)
        best = likely.topk(self.draft.generation.top_logprobs or 0)
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        self._weighed.append(
            TokenLogprob(
                self._word(token), float(likely[token]), tuple((self._word(one), weight) for one, weight in top)
            )
        )

    def write(self, token: int) -> bool:
        """Whether the answer goes on behind this token."""
        self._written += 1
        if token == self._tokenizer.eos_token_id:
            return self._end()
        self._sampler.wrote(token)
        if self.draft.grammar is not None:
            self.draft.grammar.wrote(token)
        self._tell(self._text.add(self._pieces.add(token)))
        if self._text.stopped or (self.draft.grammar is not None and self.draft.grammar.is_complete):
            return self._end()
        if self._written == self.draft.generation.max_tokens:
            self._finish_reason = "length"
            return self._end()
        return True

    def leave(self) -> None:
        if self.fault is None:
            self.draft.ended(self._answer())
        else:
            self.draft.failed(self.fault)

    def _answer(self) -> Answer:
        return Answer(
            text=self._text.said,
            confidence=None,
            probabilities=None,
            prompt_tokens=len(self.draft.prompt),
            completion_tokens=self._written,
            finish_reason=self._finish_reason,
            seconds=self.seconds,
            logprobs=None if self.draft.generation.top_logprobs is None else tuple(self._weighed),
        )

    def _end(self) -> bool:
        if not self._text.stopped:
            self._tell(self._text.add(self._pieces.rest()) + self._text.end())
        if self._told < len(self._weighed):
            self._hear("")
        return False

    def _tell(self, piece: str) -> None:
        if piece:
            self._hear(piece)

    def _hear(self, piece: str) -> None:
        weighed = None if self.draft.generation.top_logprobs is None else tuple(self._weighed[self._told :])
        self._told = len(self._weighed)
        self.draft.on_delta(Delta(self.draft.index, piece, weighed))

    def _word(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))

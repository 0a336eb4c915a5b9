"""Answers that satisfy a JSON schema: at each step only tokens that can lead to one may be written (llguidance)."""

from __future__ import annotations

import json

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perpetune.generation.parameters import BadSchema
from perpetune.output_schema import grammar


class GrammarCompiler:
    """Makes grammars of schemas for one tokenizer, whose words are laid out once, at the first schema."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: int) -> None:
        self._tokenizer = tokenizer
        self._words = max(words, len(tokenizer))
        self._laid_out: LLTokenizer | None = None

    def of(self, schema: str) -> Grammar:
        """Raises BadSchema where the schema cannot be followed."""
        try:
            json.loads(schema)
            text = grammar(schema)
        except ValueError as fault:
            raise BadSchema(str(fault)) from fault
        return Grammar(LLMatcher(self._words_of_tokenizer(), text, log_level=0), self._words)

    def _words_of_tokenizer(self) -> LLTokenizer:
        if self._laid_out is None:
            if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
                raise BadSchema("the tokenizer of this model cannot be constrained")
            try:
                self._laid_out = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=self._words, eos_token=self._tokenizer.eos_token_id
                )
            except ValueError as fault:
                raise BadSchema("the tokenizer of this model cannot be constrained") from fault
        return self._laid_out


class Grammar:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, words: int) -> None:
        self._matcher = matcher
        self._mask = allocate_token_bitmask(1, words)
        self._check()

    @property
    def is_complete(self) -> bool:
        """Whether nothing more can follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits, shape (words,), with -inf for what may not follow."""
        fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        bits = np.unpackbits(self._mask[0].view(np.uint8), bitorder="little")[: len(logits)]
        return logits.masked_fill(torch.from_numpy(bits == 0).to(logits.device), -torch.inf)

    def wrote(self, token: int) -> None:
        """Go on behind a token. What goes wrong here shows with `allow`."""
        self._matcher.consume_token(token)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise BadSchema(self._matcher.get_error().splitlines()[0])

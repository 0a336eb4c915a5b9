"""Decoding constrained to a JSON schema, by token masks from llguidance."""

from __future__ import annotations

import json
from collections.abc import Collection

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perpetune.generation.parameters import BadSchema
from perpetune.output_schema import grammar


class GrammarCompiler:
    """Compiles schemas to grammars for one tokenizer, which is prepared at the first schema.

    An answer ends with one of the tokens `stops`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, stops: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._stops = sorted(stops)
        self._vocab_size = max(vocab_size, len(tokenizer))
        self._ll_tokenizer: LLTokenizer | None = None

    def compile(self, schema: str) -> Grammar:
        """Compile a schema. Raises BadSchema if it is invalid or not supported."""
        try:
            json.loads(schema)
            text = grammar(schema)
        except ValueError as fault:
            raise BadSchema(str(fault)) from fault
        return Grammar(LLMatcher(self._tokenizer_of_grammar(), text, log_level=0), self._vocab_size)

    def _tokenizer_of_grammar(self) -> LLTokenizer:
        if self._ll_tokenizer is None:
            if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
                raise BadSchema("the tokenizer of this model cannot be constrained")
            try:
                self._ll_tokenizer = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=self._vocab_size, eos_token=self._stops
                )
            except ValueError as fault:
                raise BadSchema("the tokenizer of this model cannot be constrained") from fault
        return self._ll_tokenizer


class Grammar:
    """The state of one sequence in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._mask = allocate_token_bitmask(1, vocab_size)
        self._check()

    @property
    def is_complete(self) -> bool:
        """Whether no further token is allowed."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits, shape (vocabulary,), with -inf for tokens that the grammar does not allow."""
        fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        bits = np.unpackbits(self._mask[0].view(np.uint8), bitorder="little")[: len(logits)]
        return logits.masked_fill(torch.from_numpy(bits == 0).to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Advance by a token. Errors are raised by the next `allow`."""
        self._matcher.consume_token(token)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise BadSchema(self._matcher.get_error().splitlines()[0])

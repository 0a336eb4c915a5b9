"""Decoding of sequences that no batch may pad and no prefix may begin: each has the state that its model keeps of it.

It is the loop of transformers' `generate`, a token at a time, so that several sequences can be decoded in turn.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache

from perpetune.model.parts import last_logits
from perpetune.model.trees.packing import are_equal_logits

_TRIED: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()
_PROMPT, _STEPS = 5, 4  # tokens of a trial


@dataclass(frozen=True, eq=False)
class RowState:
    """The tokens (1, n) of a sequence and what transformers carries from token to token."""

    tokens: torch.Tensor
    carried: dict[str, Any]


class RowCache:
    """The states of the sequences being decoded, which can be added and removed as in a PaddedCache."""

    def __init__(self, states: Sequence[RowState]) -> None:
        self._states = list(states)

    def forward(self, model: torch.nn.Module, tokens: torch.Tensor, attends: torch.Tensor) -> torch.Tensor:
        """Append a token to each row, shape (rows, 1). Returns the next logits, (rows, vocabulary), fp32."""
        found = []
        for position, token in enumerate(tokens):
            state = self._states[position]
            self._states[position], logits = _read(model, torch.cat([state.tokens, token[None]], 1), state.carried)
            found.append(logits)
        return torch.cat(found)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order. A row may be kept twice."""
        kept = [self._states[row] for row in rows]
        again = [row in rows[:position] for position, row in enumerate(rows)]
        self._states = [copy.deepcopy(state) if twice else state for state, twice in zip(kept, again, strict=True)]

    def append(self, other: RowCache) -> None:
        """Append the rows of another cache."""
        self._states += other._states


def prefill_alone(model: torch.nn.Module, prompts: Sequence[Sequence[int]]) -> tuple[RowCache, torch.Tensor]:
    """Prefill each prompt by itself. Returns the cache and the next logits of each prompt."""
    device = next(model.parameters()).device
    read = [_read(model, torch.tensor([list(prompt)], device=device), {}) for prompt in prompts]
    return RowCache([state for state, _ in read]), torch.cat([logits for _, logits in read])


def _read(model: torch.nn.Module, tokens: torch.Tensor, carried: dict[str, Any]) -> tuple[RowState, torch.Tensor]:
    """Read the tokens (1, n) that are not in the carried state yet; its next logits (1, vocabulary)."""
    if _carries_state(model):
        return _read_on(model, tokens, carried)
    output = cast(Any, model)(input_ids=tokens, use_cache=False, **last_logits(model))
    return RowState(tokens, {}), output.logits[:, -1].float()


def _read_on(model: torch.nn.Module, tokens: torch.Tensor, carried: dict[str, Any]) -> tuple[RowState, torch.Tensor]:
    causal = cast(Any, model)
    if not carried:
        carried = _beginning(causal, tokens)
        inputs = causal.prepare_inputs_for_generation(tokens, is_first_iteration=True, **carried)
    else:
        inputs = causal.prepare_inputs_for_generation(tokens, next_sequence_length=1, **carried)
    output = causal(**{**inputs, **last_logits(model)}, return_dict=True)
    logits: torch.Tensor = output.logits[:, -1].float()
    return RowState(tokens, causal._update_model_kwargs_for_generation(output, carried)), logits


def _beginning(causal: Any, tokens: torch.Tensor) -> dict[str, Any]:
    """What `generate` begins with: positions, and an empty cache unless the model makes its own."""
    takes = inspect.signature(causal.forward).parameters
    carried: dict[str, Any] = {"use_cache": True}
    if "position_ids" in takes:
        carried["position_ids"] = torch.arange(tokens.shape[1], device=tokens.device)[None]
    if causal._supports_default_dynamic_cache():
        name = "cache_params" if "cache_params" in takes else "past_key_values"
        carried[name] = DynamicCache(config=causal.config.get_text_config(decoder=True))
    return carried


def _carries_state(model: torch.nn.Module) -> bool:
    """Whether two sequences in turn can be read token by token; else each is read as a whole for every token.

    It is tried once for each model: some hold the state of one sequence in their modules, and some caches of
    transformers fail for their own architecture.
    """
    if model not in _TRIED:
        _TRIED[model] = _reads_in_turn(model)
    return _TRIED[model]


@torch.inference_mode()
def _reads_in_turn(model: torch.nn.Module) -> bool:
    causal = cast(Any, model)
    words = int(causal.config.get_text_config().vocab_size)
    sample = torch.arange(2 * (_PROMPT + _STEPS), device=causal.device).reshape(2, 1, -1) + words // 4
    found, carried = [], [dict[str, Any](), dict[str, Any]()]
    try:
        for length in range(_PROMPT, _PROMPT + _STEPS):
            for number, row in enumerate(sample):
                state, logits = _read_on(model, row[:, :length], carried[number])
                carried[number] = state.carried
                found.append(logits)
    except Exception:  # what an architecture's cache raises is its own choice
        return False
    whole = [causal(input_ids=row, use_cache=False).logits[0, _PROMPT - 1 : -1] for row in sample]
    return are_equal_logits(torch.cat(found), torch.stack(whole, 1).flatten(0, 1), causal.dtype)

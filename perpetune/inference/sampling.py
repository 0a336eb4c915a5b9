"""Which token comes next, by OpenAI's parameters."""

from __future__ import annotations

import secrets
from collections import Counter

import torch

from perpetune.generation.parameters import GenerationConfig


class Sampler:
    """Chooses the tokens of one answer. Its draws are its own: who shares the batch does not change them."""

    def __init__(self, generation: GenerationConfig, index: int) -> None:
        self._generation = generation
        self._written: Counter[int] = Counter()
        self._random = torch.Generator()
        seed = secrets.randbits(62) if generation.seed is None else generation.seed
        self._random.manual_seed((seed + index) % 2**63)

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the likeliest token as the model has it."""
        asked = self._generation
        return not (asked.temperature or asked.presence_penalty or asked.frequency_penalty)

    def choose(self, logits: torch.Tensor) -> int:
        """A token, for logits of shape (words,) in fp32, of which -inf may not be chosen."""
        logits = self._penalised(logits)
        if not self._generation.temperature:
            return int(logits.argmax())
        # Over the highest, so that the smallest temperature does not overflow.
        scaled = (logits.double() - logits.max()) / self._generation.temperature
        return self._draw(scaled.softmax(-1).cpu())

    def wrote(self, token: int) -> None:
        self._written[token] += 1

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        """Less the frequency penalty for each time that a token was written, and the presence penalty once."""
        asked = self._generation
        if not self._written or not (asked.presence_penalty or asked.frequency_penalty):
            return logits
        tokens = torch.tensor(list(self._written), device=logits.device)
        times = torch.tensor(list(self._written.values()), dtype=logits.dtype, device=logits.device)
        return logits.index_add(0, tokens, -(times * asked.frequency_penalty + asked.presence_penalty))

    def _draw(self, probabilities: torch.Tensor) -> int:
        """By inversion, among the likeliest that make up `top_p` (Holtzman et al., 2020)."""
        order = None
        if self._generation.top_p < 1:
            probabilities, order = probabilities.sort(descending=True, stable=True)
            before = probabilities.cumsum(0) - probabilities
            kept = max(1, int((before < self._generation.top_p).sum()))
            probabilities = probabilities[:kept]
        summed = probabilities.cumsum(0)
        drawn = torch.rand(1, generator=self._random, dtype=torch.float64) * summed[-1]
        # The first place whose sum exceeds the draw has a probability above 0.
        position = min(int(torch.searchsorted(summed, drawn, right=True)), len(summed) - 1)
        return position if order is None else int(order[position])

"""Token sampling with OpenAI's parameters."""

from __future__ import annotations

import secrets
from collections import Counter

import torch

from perpetune.generation.parameters import GenerationConfig


class Sampler:
    """Samples the tokens of one answer, with a random generator of its own: the batch does not change the result."""

    def __init__(self, generation: GenerationConfig, index: int) -> None:
        self._generation = generation
        self._written: Counter[int] = Counter()
        self._random = torch.Generator()
        seed = secrets.randbits(62) if generation.seed is None else generation.seed
        self._random.manual_seed((seed + index) % 2**63)

    @property
    def is_greedy(self) -> bool:
        """Whether the next token is the argmax of the model's logits."""
        config = self._generation
        return not (config.temperature or config.presence_penalty or config.frequency_penalty)

    def choose(self, logits: torch.Tensor) -> int:
        """Sample a token from fp32 logits of shape (vocabulary,); tokens with -inf are excluded."""
        logits = self._penalised(logits)
        if not self._generation.temperature:
            return int(logits.argmax())
        # Relative to the highest, so that a tiny temperature does not overflow.
        scaled = (logits.double() - logits.max()) / self._generation.temperature
        return self._draw(scaled.softmax(-1).cpu())

    def record(self, token: int) -> None:
        self._written[token] += 1

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        """Subtract the frequency penalty for each occurrence of a token and the presence penalty once."""
        config = self._generation
        if not self._written or not (config.presence_penalty or config.frequency_penalty):
            return logits
        tokens = torch.tensor(list(self._written), device=logits.device)
        times = torch.tensor(list(self._written.values()), dtype=logits.dtype, device=logits.device)
        return logits.index_add(0, tokens, -(times * config.frequency_penalty + config.presence_penalty))

    def _draw(self, probabilities: torch.Tensor) -> int:
        """Draw by inversion from the nucleus of mass `top_p` (Holtzman et al., 2020)."""
        order = None
        if self._generation.top_p < 1:
            probabilities, order = probabilities.sort(descending=True, stable=True)
            before = probabilities.cumsum(0) - probabilities
            kept = max(1, int((before < self._generation.top_p).sum()))
            probabilities = probabilities[:kept]
        summed = probabilities.cumsum(0)
        drawn = torch.rand(1, generator=self._random, dtype=torch.float64) * summed[-1]
        # The first position whose cumulative sum exceeds the draw has a probability above 0.
        position = min(int(torch.searchsorted(summed, drawn, right=True)), len(summed) - 1)
        return position if order is None else int(order[position])

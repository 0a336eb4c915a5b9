"""What of streamed answers was sent, if a stream ends early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perpetune.engines.openai_api.chat import merge_call
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta
from perpetune.records import CutOff


@dataclass
class _Sent:
    text: str = ""
    tokens: int = 0
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)


class SentAnswers:
    """Adds up the deltas of `count` answers to one request."""

    def __init__(self, count: int) -> None:
        self._sent = [_Sent() for _ in range(count)]
        self._prompt_tokens = 0

    def add(self, delta: Delta) -> None:
        sent = self._sent[delta.index]
        sent.text += delta.text
        sent.tokens += delta.tokens
        for position, call in enumerate(delta.tool_calls):
            number = call.get("index", position)
            merge_call(sent.calls.setdefault(number if isinstance(number, int) else position, {}), call)
        self._prompt_tokens = self._prompt_tokens or delta.prompt_tokens

    def is_all_of(self, answers: Sequence[Answer]) -> bool:
        """Whether nothing of these answers is left to send."""
        return all(
            sent.text == answer.text and len(sent.calls) == len(answer.tool_calls)
            for sent, answer in zip(self._sent, answers, strict=True)
        )

    def answers(self, reason: CutOff) -> tuple[Answer, ...]:
        """The answers as far as they were sent."""
        return tuple(
            Answer(
                text=sent.text,
                confidence=None,
                probabilities=None,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=sent.tokens,
                finish_reason=reason,
                seconds=0.0,
                tool_calls=tuple(sent.calls.values()),
            )
            for sent in self._sent
        )

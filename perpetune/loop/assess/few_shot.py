"""Few-shot examples of a prompted model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from perpetune.records import Example, Message


def few_shot(rows: Sequence[Example], count: int, seed: int) -> tuple[Message, ...]:
    """`count` of the rows as user and assistant messages, balanced over the outputs: those of one question and a text."""
    shuffled = [row for row in rows if _is_single(row) and row.answers_with == "text"]
    random.Random(seed).shuffle(shuffled)
    turns: Counter[str] = Counter()
    ranked = []
    for row in shuffled:
        turns[row.output] += 1
        ranked.append((turns[row.output], row))
    chosen = [row for _, row in sorted(ranked, key=lambda pair: pair[0])[:count]]
    return tuple(
        message
        for row in chosen
        for message in (Message(role="user", content=row.input), Message(role="assistant", content=row.output))
    )


def _is_single(row: Example) -> bool:
    """Whether nothing but perhaps a system message comes before the question."""
    return sum(message.role != "system" for message in row.messages) <= 1

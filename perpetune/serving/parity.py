"""Parity: a gateway's engine answers the golden prompts as the trainer did when the version was evaluated."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from perpetune.answer import Answer
from perpetune.calibration import calibrated
from perpetune.errors import PerpetuneError
from perpetune.generation import Generation
from perpetune.params import ReleaseParams
from perpetune.release import Golden, Release
from perpetune.serving.constraint import constrained
from perpetune.serving.engine import Engine, Overloaded

_AT_ONCE = 2  # users' requests go on meanwhile
_SECONDS = 60.0
_SHOWN = 80  # characters of an answer in a sentence


class Disparity(PerpetuneError):
    """The engine does not answer as the trainer did: this version must not serve."""


@dataclass(frozen=True)
class Parity:
    """How many golden prompts were asked and how many answered alike; `first` tells of the first that was not."""

    asked: int
    alike: int
    first: str | None


async def require_parity(engine: Engine, release: Release, params: ReleaseParams, max_tokens: int) -> Parity:
    """Ask the golden prompts of a loaded release.

    A version without any, as those are which were registered elsewhere, passes. Raises Disparity where a smaller
    share than `parity_share` is answered alike, PerpetuneError where a minute did not suffice.
    """
    found = await _compare(engine, release, params, max_tokens)
    if found.alike < params.parity_share * found.asked:
        raise Disparity(
            f"{found.asked - found.alike} of {found.asked} golden prompts are answered otherwise than at evaluation; "
            f"{found.first}",
            do="serve it with the base, precision and engine that it was evaluated with, or set release.parity_share",
        )
    return found


async def _compare(engine: Engine, release: Release, params: ReleaseParams, max_tokens: int) -> Parity:
    golden, one_of_few = release.evaluated.golden, asyncio.Semaphore(_AT_ONCE)
    generation = constrained(Generation(max_tokens=release.evaluated.max_tokens or max_tokens), release)

    async def answer(prompt: Golden) -> Answer:
        messages = release.conversation(prompt.messages)
        async with one_of_few:
            while True:
                try:
                    (given,) = await engine.answer(release.version, messages, generation)
                    return calibrated(given, release.evaluated.temperature)
                except Overloaded as busy:  # users come first
                    await asyncio.sleep(busy.retry_after)

    try:
        async with asyncio.timeout(_SECONDS), asyncio.TaskGroup() as group:
            asked = [group.create_task(answer(prompt)) for prompt in golden]
    except TimeoutError:
        raise PerpetuneError(f"its golden prompts were not answered within {_SECONDS:.0f} s") from None
    except ExceptionGroup as faults:  # the others are cancelled by now: the release may be unloaded
        raise faults.exceptions[0] from None
    answers = [each.result() for each in asked]
    unlike = [
        f"number {number}: {_told(answer.text, answer.confidence)}, where it was "
        f"{_told(prompt.output, prompt.confidence)}"
        for number, (prompt, answer) in enumerate(zip(golden, answers, strict=True), start=1)
        if not alike(prompt, answer, params.parity_confidence)
    ]
    return Parity(len(golden), len(golden) - len(unlike), unlike[0] if unlike else None)


def alike(golden: Golden, answer: Answer, tolerance: float) -> bool:
    """The same text; for a label, a probability within the tolerance of the one recorded.

    Another label is alike only where both are within the tolerance of a tie.
    """
    if golden.confidence is None or answer.probabilities is None or answer.confidence is None:
        return answer.text.strip() == golden.output.strip()
    probability = answer.probabilities.get(golden.output, 0.0)
    as_sure = abs(probability - golden.confidence) <= tolerance
    return as_sure and (answer.text == golden.output or answer.confidence - probability <= tolerance)


def _told(text: str, confidence: float | None) -> str:
    shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
    return shown if confidence is None else f"{shown} ({confidence:.2f})"

"""Parity: a gateway's engine answers the golden prompts as the trainer did when the version was evaluated.

In reduced precision a batch of another shape is rounded differently, which can tip two tokens that are nearly equally
likely. Another label or token is therefore alike if it is as good as tied with the one recorded.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from perpetune.classifiers.calibrated import calibrated
from perpetune.engines.engine import Engine, Overloaded
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.output_constraint import constrained
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.common_prefix import common_prefix
from perpetune.generation.parameters import Generation
from perpetune.model.release import GoldenPrompt, Release
from perpetune.params import ReleaseParams

_AT_ONCE = 2  # users' requests go on meanwhile
_SECONDS = 60.0
_TOKENS = 32  # of free text that are compared: whole answers would keep a slow machine for minutes
_TOP = 5  # likeliest tokens in the place of each
_SHOWN = 60  # characters of an answer in a sentence


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

    A version without any passes, for instance one that was registered elsewhere. Raises Disparity if a smaller share
    than `parity_rate` is answered alike, and PerpetuneError if a minute does not suffice.
    """
    found = await _compare(engine, release, params, max_tokens)
    if found.alike < params.parity_rate * found.asked:
        raise Disparity(
            f"{found.asked - found.alike} of {found.asked} golden prompts are answered differently than at evaluation; "
            f"{found.first}",
            do="serve it with the base, precision and engine that it was evaluated with; or allow the difference by "
            f"release.parity_rate in params.yaml, restart `perpetune up`, and `perpetune promote {release.version} "
            "--reason TEXT`",
        )
    return found


async def _compare(engine: Engine, release: Release, params: ReleaseParams, max_tokens: int) -> Parity:
    golden, one_of_few = release.evaluated.golden, asyncio.Semaphore(_AT_ONCE)
    most = release.evaluated.max_tokens or max_tokens
    generation = Generation(most) if release.labels else Generation(min(most, _TOKENS), top_logprobs=_TOP)
    generation = constrained(generation, release)

    async def answer(prompt: GoldenPrompt) -> Answer:
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
        f"number {number}: {_differing(prompt, answer)}"
        for number, (prompt, answer) in enumerate(zip(golden, answers, strict=True), start=1)
        if not alike(prompt, answer, params.parity_tolerance)
    ]
    return Parity(len(golden), len(golden) - len(unlike), unlike[0] if unlike else None)


def alike(golden: GoldenPrompt, answer: Answer, tolerance: float) -> bool:
    """For a label, a probability within the tolerance of the one recorded; for free text, the same as far as it goes.

    Another label is alike only if both are within the tolerance of a tie. Text that differs is alike only if the first
    token that does is as good as tied with the recorded one: rounding may have moved each of the two by the tolerance.
    """
    if golden.confidence is None or answer.probabilities is None or answer.confidence is None:
        return _same_text(golden.output, answer) or _parts_at_a_tie(golden.output, answer, 2 * tolerance)
    probability = answer.probabilities.get(golden.output, 0.0)
    as_sure = abs(probability - golden.confidence) <= tolerance
    return as_sure and (answer.text == golden.output or answer.confidence - probability <= tolerance)


def _same_text(output: str, answer: Answer) -> bool:
    written, recorded = answer.text.strip(), output.strip()
    return recorded.startswith(written) if answer.finish_reason == "length" else written == recorded


def _parts_at_a_tie(output: str, answer: Answer, tolerance: float) -> bool:
    parted = len(common_prefix([output, answer.text]))
    begins = 0
    for token in answer.logprobs or ():
        ends = begins + _length(token.token, answer.text, begins)
        if ends > parted:
            return math.exp(token.logprob) - _probability(output[begins:], token) <= tolerance
        begins = ends
    return False


def _probability(rest: str, token: TokenLogprob) -> float:
    """Of the likeliest token in the place of this one that the rest of the recorded text can begin with."""
    return max((math.exp(logprob) for text, logprob in token.top if _length(text, rest, 0)), default=-1.0)


def _length(token: str, text: str, at: int) -> int:
    """How much of the text the token is there, 0 if it is not. Some tokenizers drop the blank that it begins with."""
    return next((len(form) for form in (token, f" {token}") if token and text.startswith(form, at)), 0)


def _differing(golden: GoldenPrompt, answer: Answer) -> str:
    """Both answers, from shortly before the place at which they part."""
    start = max(0, len(common_prefix([golden.output, answer.text])) - _SHOWN // 2)
    given, recorded = _told(answer.text[start:], answer.confidence), _told(golden.output[start:], golden.confidence)
    return f"{given}, where it was {recorded}" if start == 0 else f"…{given}, where it was …{recorded}"


def _told(text: str, confidence: float | None) -> str:
    shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
    return shown if confidence is None else f"{shown} ({confidence:.2f})"

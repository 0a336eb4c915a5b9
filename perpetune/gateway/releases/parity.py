"""The parity check: the gateway's engine must answer the golden prompts as the trainer did at evaluation.

In reduced precision another batch shape rounds differently, which can swap two almost equally likely tokens. Another
label or token therefore still matches if it is tied with the recorded one within a tolerance.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from perpetune.classifiers.temperature_scaling import scale_temperature
from perpetune.engines.engine import Engine, Overloaded
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.chat.output_constraint import constrained
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.common_prefix import common_prefix
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import GoldenPrompt, Release
from perpetune.params import ReleaseParams

_MAX_CONCURRENT = 2  # leaves capacity for user requests
_TIMEOUT_SECONDS = 60.0
_MAX_TOKENS = 32  # of free text to compare; complete answers take minutes on a slow machine
_TOP_LOGPROBS = 5
_SHOWN_CHARS = 60  # characters of an answer in a message


class ParityError(PerpetuneError):
    """The engine's answers differ from the trainer's: this version must not serve."""


@dataclass(frozen=True)
class ParityResult:
    """The number of golden prompts, the number of matching answers, and a description of the first mismatch."""

    prompts: int
    matching: int
    first_mismatch: str | None


async def require_parity(engine: Engine, release: Release, params: ReleaseParams, max_tokens: int) -> ParityResult:
    """Compare a loaded release's answers to its golden prompts with the recorded ones.

    A version without golden prompts, such as one registered by other tools, passes. Raises ParityError if the ratio of
    matching answers is below `parity_rate`, and PerpetuneError if a minute does not suffice.
    """
    found = await _compare(engine, release, params, max_tokens)
    if found.matching < params.parity_rate * found.prompts:
        raise ParityError(
            f"{found.prompts - found.matching} of {found.prompts} golden prompts are answered differently than at evaluation; "
            f"{found.first_mismatch}",
            do="serve it with the base, precision and engine that it was evaluated with; or allow the difference by "
            f"release.parity_rate in params.yaml, restart `perpetune up`, and `perpetune promote {release.version} "
            "--reason TEXT`",
        )
    return found


async def _compare(engine: Engine, release: Release, params: ReleaseParams, max_tokens: int) -> ParityResult:
    golden, concurrency = release.evaluated.golden, asyncio.Semaphore(_MAX_CONCURRENT)
    max_tokens_of_answer = release.evaluated.max_tokens or max_tokens
    generation = (
        GenerationConfig(max_tokens_of_answer)
        if release.labels
        else GenerationConfig(min(max_tokens_of_answer, _MAX_TOKENS), top_logprobs=_TOP_LOGPROBS)
    )
    generation = constrained(generation, release)

    async def answer(prompt: GoldenPrompt) -> Answer:
        messages = release.conversation(prompt.messages)
        async with concurrency:
            while True:
                try:
                    (given,) = await engine.answer(release.version, messages, generation)
                    return scale_temperature(given, release.evaluated.temperature)
                except Overloaded as busy:  # user requests have priority
                    await asyncio.sleep(busy.retry_after)

    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
            prompts = [group.create_task(answer(prompt)) for prompt in golden]
    except TimeoutError:
        raise PerpetuneError(f"its golden prompts were not answered within {_TIMEOUT_SECONDS:.0f} s") from None
    except ExceptionGroup as faults:  # the other tasks are cancelled, so the release can be unloaded
        raise faults.exceptions[0] from None
    answers = [each.result() for each in prompts]
    mismatches = [
        f"number {number}: {_mismatch(prompt, answer)}"
        for number, (prompt, answer) in enumerate(zip(golden, answers, strict=True), start=1)
        if not is_match(prompt, answer, params.parity_tolerance)
    ]
    return ParityResult(len(golden), len(golden) - len(mismatches), mismatches[0] if mismatches else None)


def is_match(golden: GoldenPrompt, answer: Answer, tolerance: float) -> bool:
    """Whether an answer matches the recorded one.

    A label matches if its probability is within the tolerance of the recorded one; another label only if the two are
    tied within the tolerance. Free text matches if it is the same up to its length, or if the first differing token is
    tied with the recorded one within twice the tolerance, because rounding may move both.
    """
    if golden.confidence is None or answer.probabilities is None or answer.confidence is None:
        return _same_text(golden.output, answer) or _differs_at_a_tie(golden.output, answer, 2 * tolerance)
    probability = answer.probabilities.get(golden.output, 0.0)
    is_close = abs(probability - golden.confidence) <= tolerance
    return is_close and (answer.text == golden.output or answer.confidence - probability <= tolerance)


def _same_text(output: str, answer: Answer) -> bool:
    written, recorded = answer.text.strip(), output.strip()
    return recorded.startswith(written) if answer.finish_reason == "length" else written == recorded


def _differs_at_a_tie(output: str, answer: Answer, tolerance: float) -> bool:
    differs_at = len(common_prefix([output, answer.text]))
    begins = 0
    for token in answer.logprobs or ():
        ends = begins + _length(token.token, answer.text, begins)
        if ends > differs_at:
            return math.exp(token.logprob) - _probability(output[begins:], token, is_first=not begins) <= tolerance
        begins = ends
    return False


def _probability(rest: str, token: TokenLogprob, *, is_first: bool) -> float:
    """The probability of the most likely top token with which the rest of the recorded text can begin.

    The space before the first token is cut from an answer, but not from the tokens that might have been there instead.
    """
    top = [(text.lstrip() if is_first else text, logprob) for text, logprob in token.top]
    return max((math.exp(logprob) for text, logprob in top if _length(text, rest, 0)), default=-1.0)


def _length(token: str, text: str, at: int) -> int:
    """The token's length in the text at this position, 0 if it is not there. Tokenizers may drop its leading space."""
    return next((len(form) for form in (token, f" {token}") if token and text.startswith(form, at)), 0)


def _mismatch(golden: GoldenPrompt, answer: Answer) -> str:
    """Both answers, from shortly before the position at which they differ."""
    start = max(0, len(common_prefix([golden.output, answer.text])) - _SHOWN_CHARS // 2)
    given, recorded = _shown(answer.text[start:], answer.confidence), _shown(golden.output[start:], golden.confidence)
    return f"got {given}, expected {recorded}" if start == 0 else f"got …{given}, expected …{recorded}"


def _shown(text: str, confidence: float | None) -> str:
    shown = repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")
    return shown if confidence is None else f"{shown} ({confidence:.2f})"

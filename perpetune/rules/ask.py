"""Asking a larger model for the labels of rows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from tqdm import tqdm

from perpetune.curation.rows.dedup_key import row_hash
from perpetune.engines.engine import ContextExceeded, EngineDown, Unsupported
from perpetune.engines.openai_api.tls import remote_tls
from perpetune.engines.remote_engine import UNVERSIONED, RemoteEngine, label_named, remote_release
from perpetune.errors import PerpetuneError
from perpetune.generation.parameters import GenerationConfig
from perpetune.params import RemoteModel
from perpetune.records import Example, Message, conversation
from perpetune.rules.prompt import Prompt
from perpetune.rules.replies import Reply, ReplyCache, reply_key
from perpetune.rules.votes import Faults
from perpetune.settings import Settings

NONE = "none"
"""What the model answers if no label fits."""
MAX_TOKENS = 64
_CHARACTERS = 4  # of a token, roughly, for the estimate only
_TRIES = 5


@dataclass(frozen=True)
class Question:
    """A row's conversation, the key of its reply, and the row's hash."""

    messages: tuple[Message, ...]
    key: str
    row: str


@dataclass(frozen=True)
class AskingEstimate:
    """What asking will cost: requests that are not in the cache, their tokens, dollars (None without prices), seconds.

    `seconds` is from earlier replies of the model, or at a second each if `guessed`.
    """

    prompt: str
    rows: int
    requests: int
    read: int
    written: int
    dollars: float | None
    seconds: float
    guessed: bool

    def __str__(self) -> str:
        known = self.rows - self.requests
        if not self.requests:
            return f"`{self.prompt}`: all {self.rows:,} replies are in the cache: nothing is asked"
        cost = "" if self.dollars is None else f", about ${self.dollars:,.2f}"
        basis = " if a reply takes a second" if self.guessed else ""
        return (
            f"`{self.prompt}`: {self.requests:,} requests ({known:,} replies are in the cache), about {self.read:,} tokens "
            f"to read and {self.written:,} to write{cost}, about {self.seconds:,.0f} s{basis}"
        )


def questions(prompt: Prompt, rows: Sequence[Example], labels: Sequence[str], instruction: str) -> list[Question]:
    """What the model is asked for each row."""
    system = "\n\n".join(filter(None, (prompt.instruction or instruction, _choice(labels))))
    asked = [conversation("", row) for row in rows]
    every = [(Message(role="system", content=system), *(m for m in each if m.role != "system")) for each in asked]
    return [
        Question(messages, reply_key(prompt.url, prompt.model, messages), row_hash(row))
        for messages, row in zip(every, rows, strict=True)
    ]


def _choice(labels: Sequence[str]) -> str:
    return (
        "Answer with one of these labels, exactly as it is written, and nothing else. "
        f"If none of them fits, or you are not sure, answer {NONE}.\n" + "\n".join(labels)
    )


def estimate(name: str, prompt: Prompt, asked: Sequence[Question], cache: ReplyCache) -> AskingEstimate:
    """What asking these questions will cost."""
    missing = _missing(asked, cache)
    read = sum(len(message.content) for each in missing for message in each.messages) // _CHARACTERS
    written = 4 * len(missing)
    seconds = cache.mean_seconds(prompt.model)
    dollars = None
    if prompt.dollars_read is not None or prompt.dollars_written is not None:
        dollars = (read * (prompt.dollars_read or 0) + written * (prompt.dollars_written or 0)) / 1e6
    return AskingEstimate(
        name,
        len(asked),
        len(missing),
        read,
        written,
        dollars,
        len(missing) * (seconds or 1.0) / prompt.concurrency,
        seconds is None,
    )


def _missing(asked: Sequence[Question], cache: ReplyCache) -> list[Question]:
    return [each for key, each in {each.key: each for each in asked}.items() if cache.get(key) is None]


def ask(name: str, prompt: Prompt, asked: Sequence[Question], cache: ReplyCache, wait: float = 1.0) -> Faults | None:
    """Ask what is not in the cache, several at once, and keep every reply; returns the rows that were too long.

    A failed request is tried again after `wait` seconds, then twice as many, and so on. Raises PerpetuneError if the
    server fails for good; the replies until then are kept.
    """
    missing = _missing(asked, cache)
    if not missing:
        return None
    try:
        too_long = asyncio.run(_ask(name, prompt, missing, cache, wait))
    except (EngineDown, Unsupported) as fault:
        raise PerpetuneError(
            f"the rule `{name}` cannot be asked: {fault}",
            where=prompt.url,
            do=f"check the address and {prompt.key_variable}; what was answered is kept, so run it again",
        ) from fault
    return Faults(len(too_long), too_long[0]) if too_long else None


def vote(asked: Question, labels: Sequence[str], cache: ReplyCache) -> str | None:
    """The label in a kept reply; None if it is no label."""
    reply = cache.get(asked.key)
    return None if reply is None else label_named(reply.text, labels)


async def _ask(name: str, prompt: Prompt, missing: Sequence[Question], cache: ReplyCache, wait: float) -> list[str]:
    """Ask and keep the replies; returns what the server says of rows that are too long for the model."""
    engine = RemoteEngine(_key(prompt), remote_tls(Settings()), likelihood=False)
    turn = asyncio.Semaphore(prompt.concurrency)
    too_long: list[str] = []

    async def one(question: Question) -> None:
        async with turn:
            try:
                cache.put(question.key, prompt.model, await _reply(engine, question, wait), question.row)
            except ContextExceeded as fault:
                too_long.append(str(fault))
            progress.update()

    await engine.load(remote_release("rules", RemoteModel(url=prompt.url, model=prompt.model)))
    with tqdm(total=len(missing), desc=name, unit="row", disable=None) as progress:
        try:
            async with asyncio.TaskGroup() as group:
                for question in missing:
                    group.create_task(one(question))
        except ExceptionGroup as faults:  # the first one; the group has ended the others
            raise faults.exceptions[0] from None
        finally:
            await engine.close()
    return too_long


async def _reply(engine: RemoteEngine, question: Question, wait: float) -> Reply:
    for attempt in range(_TRIES):
        try:
            [answer] = await engine.answer(UNVERSIONED, question.messages, GenerationConfig(MAX_TOKENS))
            return Reply(answer.text, answer.prompt_tokens, answer.completion_tokens, answer.seconds)
        except EngineDown:
            if attempt == _TRIES - 1:
                raise
            await asyncio.sleep(wait * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _key(prompt: Prompt) -> SecretStr | None:
    found = os.environ.get(prompt.key_variable)
    return SecretStr(found) if found else None

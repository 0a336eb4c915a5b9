"""The application: asks through the official OpenAI client, and reports the right answers later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from openai import OpenAI, OpenAIError

from perpetune.records import Example

AT_ONCE = 12


@dataclass(frozen=True)
class SentRequest:
    """One request of the stream: what came back, or None where it failed."""

    example: Example
    time: float
    seconds: float
    request_id: str
    answer: str | None
    version: str


@dataclass
class Application:
    """The application and all that it has asked, in the order of asking."""

    gateway: str
    model: str
    asked: list[SentRequest] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = OpenAI(
            base_url=f"{self.gateway}/v1", api_key="none", default_headers=self.headers, max_retries=0, timeout=120
        )

    def ask(self, example: Example) -> SentRequest:
        began = time.time()
        try:
            reply = self._client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": example.input}], user=example.group
            )
        except OpenAIError:
            return SentRequest(example, began, time.time() - began, "", None, "")
        extension = (reply.model_extra or {}).get("perpetune", {})
        answer = reply.choices[0].message.content
        return SentRequest(example, began, time.time() - began, reply.id, answer, str(extension.get("version", "")))

    def send(self, examples: Sequence[Example]) -> list[SentRequest]:
        """Ask about each, a few at a time."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = list(pool.map(self.ask, examples))
        self.asked += asked
        return asked

    def label(self, asked: Sequence[SentRequest]) -> None:
        """Report the right answer of each request that was answered."""
        with httpx.Client(base_url=self.gateway, headers=self.headers, timeout=30, trust_env=False) as client:
            for one in asked:
                if one.answer is not None:
                    body = {"request_id": one.request_id, "label": one.example.output}
                    client.post("/v1/feedback", json=body).raise_for_status()

    @contextmanager
    def trickle(self, examples: Iterator[Example], pause_seconds: float) -> Iterator[Callable[[], list[SentRequest]]]:
        """Keep asking in the background; yields a function that gives what was asked so far."""
        stop = threading.Event()
        mine: list[SentRequest] = []

        def go_on() -> None:
            while not stop.wait(pause_seconds):
                example = next(examples, None)
                if example is None:
                    return
                mine.append(self.ask(example))

        thread = threading.Thread(target=go_on, name="trickle")
        thread.start()
        try:
            yield lambda: list(mine)
        finally:
            stop.set()
            thread.join()
            self.asked += mine

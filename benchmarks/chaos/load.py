"""Clients that ask two gateways at a steady rate and send labels, as an application behind a load balancer does."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from chaos import task

TRY_SECONDS = 6.0  # until the next gateway is asked
REQUEST_SECONDS = 30.0  # until a request has failed
_AGAIN = {429, 500, 502, 503, 504}


@dataclass(frozen=True)
class FailedRequest:
    since: float
    until: float
    why: str


@dataclass(frozen=True)
class Seen:
    """Counts since the beginning."""

    answered: int
    labels: int
    failed: int
    retried: int
    unacknowledged: int


@dataclass
class Load:
    """`answered` are the versions by request id, `labels` the acknowledged labels by request id.

    `rate` is of the questions a second of all clients together; a client whose answer comes late does not catch up.
    """

    urls: Sequence[str]
    clients: int = 4
    rate: float = 8.0
    answered: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    failed: list[FailedRequest] = field(default_factory=list)
    retried: int = 0
    unacknowledged: int = 0
    lost_answers: set[str] = field(default_factory=set)
    lost_labels: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def seen(self) -> Seen:
        return Seen(len(self.answered), len(self.labels), len(self.failed), self.retried, self.unacknowledged)

    def acknowledged(self) -> tuple[set[str], dict[str, str]]:
        """Copies of the ids of the answers, and of the labels, while clients go on."""
        with self._lock:
            return set(self.answered), dict(self.labels)

    def start(self, seed: int) -> None:
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 100 + number),), daemon=True)
            for number in range(self.clients)
        ]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _run(self, draw: random.Random) -> None:
        rows = [row for desk in task.LABELS for row in task.questions(desk)]
        with httpx.Client(timeout=TRY_SECONDS, trust_env=False) as client:
            wait = draw.uniform(0, self.clients / self.rate)
            while not self._stop.wait(wait):
                since = time.monotonic()
                row = draw.choice(rows)
                body = {"model": task.NAME, "messages": [{"role": "user", "content": row.input}]}
                answer = self._post(client, draw, "/v1/chat/completions", body, must=True)
                if answer is not None:
                    self._note(client, draw, answer.json(), row.output)
                wait = max(0.0, since + self.clients / self.rate - time.monotonic())

    def _note(self, client: httpx.Client, draw: random.Random, answer: Mapping[str, Any], label: str) -> None:
        with self._lock:
            self.answered[answer["id"]] = answer["perpetune"]["version"]
        if draw.random() < 0.7:
            self._label(client, draw, answer["id"], label)

    def _label(self, client: httpx.Client, draw: random.Random, request: str, label: str) -> None:
        body = {"request_id": request, "label": label}
        if self._post(client, draw, "/v1/feedback", body, must=False) is None:
            self.unacknowledged += 1
        else:
            with self._lock:
                self.labels[request] = label

    def _post(
        self, client: httpx.Client, draw: random.Random, path: str, body: Mapping[str, object], *, must: bool
    ) -> httpx.Response | None:
        """The answer of one of the gateways; None if none has answered in time. `must`: that is a failure."""
        since, first, why = time.monotonic(), draw.randrange(len(self.urls)), ""
        number = 0
        while time.monotonic() - since < REQUEST_SECONDS:
            url = self.urls[(first + number) % len(self.urls)]
            number += 1
            try:
                answer = client.post(url + path, json=body)
            except httpx.TransportError as fault:
                why = type(fault).__name__
            else:
                if answer.status_code == 200:
                    self.retried += number > 1
                    return answer
                why = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in _AGAIN and must:
                    break
            if number % len(self.urls) == 0:
                time.sleep(0.3)
        if must:
            self.failed.append(FailedRequest(since, time.monotonic(), why))
        return None

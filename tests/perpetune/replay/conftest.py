"""Streams of short texts whose answer is in their words, and settings that fit them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perpetune.params import Params, load_params
from perpetune.records import Example
from perpetune.replay.histories.history import History, Request

ROOT = Path(__file__).parents[3]
BEGINS = datetime(2024, 1, 1, tzinfo=UTC)
FILLING = [
    "this",
    "that",
    "which",
    "here",
    "there",
    "every",
    "some",
    "many",
    "often",
    "never",
    "with",
    "from",
    "into",
    "about",
    "over",
    "under",
]
OLD = {"yes": ["good", "fine", "great"], "no": ["bad", "poor", "awful"]}
NEW = {"yes": ["moving", "witty", "gripping"], "no": ["dull", "hollow", "tedious"]}


UNKNOWN = [f"{word}ly" for word in FILLING]  # words that no model was taught, so that none errs by them


def example(
    position: int,
    picks: random.Random,
    words: Mapping[str, list[str]],
    filling: int = 6,
    said_besides: Sequence[str] = FILLING,
) -> Example:
    answer = picks.choice(["yes", "no"])
    wrong = "no" if answer == "yes" else "yes"
    said = [*picks.choices(said_besides, k=filling), picks.choice(words[answer if picks.random() < 0.9 else wrong])]
    picks.shuffle(said)
    return Example(input=" ".join(said), output=answer, id=str(position), group=str(position), source="test")


def stream(
    *,
    stable: int,
    turned: int,
    seed: int = 7,
    initial: int = 1000,
    late: tuple[Mapping[str, list[str]], int, Sequence[str]] = (NEW, 6, FILLING),
) -> History:
    """Requests a quarter of an hour apart, labelled a day later.

    After `stable` ones they have `late` words for the answers, and another number of other words that say nothing.
    """
    picks = random.Random(seed)
    teach = tuple(example(position, picks, OLD) for position in range(initial))
    asked = [
        example(initial + position, picks, *((OLD, 6, FILLING) if position < stable else late))
        for position in range(stable + turned)
    ]
    times = [BEGINS + position * timedelta(minutes=15) for position in range(len(asked))]
    requests = tuple(
        Request(each.model_copy(update={"time": time}), time, time + timedelta(days=1))
        for each, time in zip(asked, times, strict=True)
    )
    return History("stream", requests, (times[stable],) if turned else (), teach)


@pytest.fixture
def params() -> Params:
    """The repository's params with a check a day, fewer resamples, and a schedule that never has enough new rows."""
    return changed(load_params(ROOT / "params.yaml"))


def changed(params: Params) -> Params:
    values = params.model_dump()
    values["watch"] |= {"cron": "0 6 * * *", "consecutive_checks": 4, "window": 200}
    values["refresh"] |= {"cooldown_minutes": 24 * 60, "growth": 99.0}
    values["evaluate"] |= {"bootstrap_samples": 200, "encoder": None}
    return Params.model_validate(values)


@pytest.fixture(scope="module")
def turning() -> History:
    return stream(stable=800, turned=1600)


@pytest.fixture
def stable() -> Callable[[int], History]:
    return lambda seed: stream(stable=2400, turned=0, seed=seed)


@pytest.fixture
def wordier() -> History:
    """From the 600th request on people use more and other words, and the model is right as often as before."""
    return stream(stable=600, turned=900, late=(OLD, 14, UNKNOWN))

"""The bundled reviews as a history: sentences of product reviews, and then of film reviews."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from perpetune.curation.readers.reviews import find_wheel, labelled, product_examples, rated_sentences
from perpetune.demo.data import CLEAR, SEED, divide
from perpetune.records import Example
from perpetune.replay.histories.history import History, Request

Stream = Literal["reviews", "reviews-quiet"]
STREAMS: tuple[Stream, ...] = get_args(Stream)

BEGINS = datetime(2024, 1, 1, 12, tzinfo=UTC)  # the sentences have no times of their own
A_DAY = 50
STABLE = 600  # requests about products before the stream turns
FILMS = 1800


def review_history(stream: Stream, assets: Path, label_delay: timedelta) -> History:
    """Products throughout ("reviews-quiet"), or products and then films ("reviews").

    As in the demo the first model learns from whole reviews of products, and the stream holds the others. With the
    films the team introduces a third answer, "mixed". Raises PerpetuneError if the wheel with the reviews is missing.
    """
    wheel = find_wheel(assets)
    taught, stable = divide(product_examples(wheel, CLEAR))
    if stream == "reviews-quiet":
        return history_of(stream, taught, stable, (), label_delay)
    films = [example for rated in rated_sentences(wheel, "films") if (example := labelled(rated))]
    random.Random(SEED).shuffle(films)
    return history_of(stream, taught, [*stable[:STABLE], *films[:FILMS]], (STABLE,), label_delay)


def history_of(
    stream: str, taught: Sequence[Example], asked: Sequence[Example], changes: Sequence[int], label_delay: timedelta
) -> History:
    """Rows without times as a history: 50 are asked a day; `changes` are places among them."""
    times = [BEGINS + position * timedelta(days=1) / A_DAY for position in range(len(asked))]
    requests = tuple(
        Request(example.model_copy(update={"time": time}), time, time + label_delay)
        for example, time in zip(asked, times, strict=True)
    )
    return History(stream, requests, tuple(times[position] for position in changes), tuple(taught))

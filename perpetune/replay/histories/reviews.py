"""The bundled reviews as a history: sentences of product reviews, then of film reviews."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from perpetune.curation.readers.reviews import find_wheel, labelled, product_examples, rated_sentences
from perpetune.demo.data import CLEAR, SEED, divide
from perpetune.records import Example
from perpetune.replay.histories.history import History, Request

Stream = Literal["reviews", "reviews-stable"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
FORMER_NAMES: dict[str, Stream] = {"reviews-quiet": "reviews-stable"}

BEGINS = datetime(2024, 1, 1, 12, tzinfo=UTC)  # the sentences have no times
PER_DAY = 50
STABLE = 600  # requests about products before the change
FILMS = 1800


def stream_named(name: str) -> Stream | None:
    """The bundled stream of this name; None if there is none. A former name gives a FutureWarning."""
    if name in FORMER_NAMES:
        warnings.warn(f"the stream `{name}` is now called `{FORMER_NAMES[name]}`", FutureWarning, stacklevel=2)
        return FORMER_NAMES[name]
    return next((stream for stream in STREAMS if stream == name), None)


def review_history(stream: Stream, assets: Path, label_delay: timedelta) -> History:
    """The stream "reviews", product reviews and then film reviews, or "reviews-stable", only product reviews.

    As in the demo, the first model is trained on whole product reviews that are not in the stream. With the films comes a
    third label, "mixed". Raises PerpetuneError if the wheel with the reviews is missing.
    """
    wheel = find_wheel(assets)
    initial, stable = divide(product_examples(wheel, CLEAR))
    if stream == "reviews-stable":
        return history_of(stream, initial, stable, (), label_delay)
    films = [example for rated in rated_sentences(wheel, "films") if (example := labelled(rated))]
    random.Random(SEED).shuffle(films)
    return history_of(stream, initial, [*stable[:STABLE], *films[:FILMS]], (STABLE,), label_delay)


def history_of(
    stream: str, initial: Sequence[Example], rows: Sequence[Example], changes: Sequence[int], label_delay: timedelta
) -> History:
    """A history of rows without times, 50 requests a day; `changes` are positions in `rows`."""
    times = [BEGINS + position * timedelta(days=1) / PER_DAY for position in range(len(rows))]
    requests = tuple(
        Request(example.model_copy(update={"time": time}), time, time + label_delay)
        for example, time in zip(rows, times, strict=True)
    )
    return History(stream, requests, tuple(times[position] for position in changes), tuple(initial))

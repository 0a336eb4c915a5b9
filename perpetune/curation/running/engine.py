"""Where functions of single rows run: in this process, or on the machines of a Ray cluster.

What compares rows with each other runs in this process. The results are the same, row for row.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import length_hint
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from perpetune.errors import PerpetuneError
from perpetune.params import CurateParams

S = TypeVar("S")
T = TypeVar("T")

BATCH = 5_000
"""Rows or texts that are worked on at once. Their results are in memory together."""
WINDOW = 40
"""Batches that are given to Ray at once, so that memory does not grow with the rows."""


class Engine(Protocol):
    """`batches` are the results of a function for batches of rows or texts, in their order."""

    def batches(self, function: Callable[[Sequence[S]], T], items: Iterable[S]) -> Iterator[T]: ...


class InProcess:
    """One batch after the other in this process, each when it is asked for."""

    def batches(self, function: Callable[[Sequence[S]], T], items: Iterable[S]) -> Iterator[T]:
        return map(function, batched(items))


def batched(items: Iterable[S]) -> Iterator[tuple[S, ...]]:
    """The items in batches, with a bar that shows how many are done if there are many."""
    left = iter(items)
    count = length_hint(items)
    with tqdm(total=count, unit=" rows", unit_scale=True, leave=False, disable=_bar(count)) as bar:
        while batch := tuple(islice(left, BATCH)):
            yield batch
            bar.update(len(batch))


def _bar(count: int) -> bool | None:
    """What tqdm's `disable` is: for many rows no bar only if nobody would see it (None)."""
    return None if count > 10 * BATCH else True


IN_PROCESS = InProcess()


class OnRay:
    """Batches on Ray Data. `address` is that of a cluster; None starts one on this machine if none is running.

    The function must be one of a module, or a `functools.partial` of it, which the cluster's machines can import.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def batches(self, function: Callable[[Sequence[S]], T], items: Iterable[S]) -> Iterator[T]:
        """As `Engine`. Raises PerpetuneError if Ray is not installed, or its cluster cannot be reached."""
        left = batched(items)
        while window := tuple(islice(left, WINDOW)):
            yield from _of_window(_connected(self._address), function, window)


def _of_window(data: Any, function: Callable[[Sequence[S]], T], window: Sequence[Sequence[S]]) -> Iterator[T]:
    import pyarrow

    # A batch of ours is a row and a block of Ray's, so that it has the same items as in one process.
    blocks = [pyarrow.table({"batch": [number], "items": [pickle.dumps(batch)]}) for number, batch in enumerate(window)]
    waiting: dict[int, bytes] = {}
    expected = 0
    for result in data.from_arrow(blocks).map(_applied, fn_kwargs={"function": function}).iter_rows():
        waiting[result["batch"]] = result["result"]
        while expected in waiting:
            yield pickle.loads(waiting.pop(expected))
            expected += 1


def engine_of(params: CurateParams) -> Engine:
    return OnRay(params.ray_address) if params.engine == "ray" else IN_PROCESS


def for_each(function: Callable[[Sequence[S]], Sequence[T]], items: Iterable[S], engine: Engine) -> Iterable[T]:
    """What the function gives for each row or text, as it is asked for."""
    return chain.from_iterable(engine.batches(function, items))


def _applied(batch: dict[str, Any], function: Callable[[Any], object]) -> dict[str, Any]:
    return {"batch": batch["batch"], "result": pickle.dumps(function(pickle.loads(batch["items"])))}


def _connected(address: str | None) -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise PerpetuneError(
            "curate.engine: ray needs Ray, which is not installed", do='run `pip install "perpetune[ray]"`'
        ) from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    if not ray.is_initialized():
        try:
            _require_answer(address)
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, RuntimeError) as fault:
            raise PerpetuneError(
                f"no Ray cluster answers at {address}: {fault}",
                do="start one with `ray start --head`, or correct curate.ray_address in params.yaml",
            ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data


def _require_answer(address: str | None) -> None:
    """Raise OSError if nothing listens at HOST:PORT: Ray itself would wait for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()

"""Between the gateway and the prediction log: rows are written in groups, and kept while the database fails.

An answer goes out once its row is written, so feedback straight after it finds the row and a killed process has
lost no answer that anyone saw. While the database fails, answers go out at once all the same; their rows wait in
memory and are tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Engine, insert
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from perpetune.records import Failure, Feedback, Prediction, Shadow
from perpetune.serving.log import UnknownRequest, add_feedback, reason, record_predictions
from perpetune.serving.metrics import Metrics
from perpetune.serving.tables import failures, shadows

logger = logging.getLogger(__name__)

_GROUP = 500  # rows a transaction
# What the database says of a row, or the driver of a value (ValueError, OverflowError), rather than of itself.
_REFUSED = (DataError, IntegrityError, UnknownRequest, ValueError, OverflowError)


class LogUnavailable(Exception):
    """The database did not take the feedback; it is the sender's to send again."""


@dataclass(frozen=True)
class LogState:
    waiting: int
    lost: int
    trouble: str | None

    def __str__(self) -> str:
        lost = f"{self.lost} rows lost" if self.lost else ""
        waiting = f"{self.waiting} rows waiting, {self.trouble}" if self.trouble else ""
        return "; ".join(part for part in (waiting, lost) if part) or "ok"


@dataclass(frozen=True, eq=False)
class _Row:
    content: Prediction | Feedback | Shadow | Failure
    written: asyncio.Future[None]

    @property
    def request_id(self) -> str:
        return self.content.id if isinstance(self.content, Prediction | Failure) else self.content.request_id


class Recorder:
    """Writes to the log from one thread.

    `capacity` bounds the rows that wait; `patience_seconds` is how long an answer waits for its row,
    `retry_seconds` how long a failing database is left alone.
    """

    def __init__(
        self,
        log: Engine,
        metrics: Metrics,
        *,
        capacity: int = 5000,
        patience_seconds: float = 0.25,
        retry_seconds: float = 1.0,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._capacity = capacity
        self._patience = patience_seconds
        self._retry = retry_seconds
        self._rows: deque[_Row] = deque()
        self._ids: Counter[str] = Counter()
        self._some = asyncio.Event()
        self._lost = 0
        self._trouble: str | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prediction-log")
        self._writer: asyncio.Task[None] | None = None
        metrics.log_waiting.set_function(lambda: len(self._rows))

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_forever())

    @property
    def state(self) -> LogState:
        stopped = "the writer stopped" if self._writer and self._writer.done() else None
        return LogState(len(self._rows), self._lost, self._trouble or stopped)

    async def record(self, prediction: Prediction) -> None:
        """Hand over an answer; returns when it is stored, or when waiting longer would only delay the answer."""
        row = self._keep(prediction)
        if row is None or self._trouble:
            return
        written, _ = await asyncio.wait([row.written], timeout=self._patience)
        if not written:
            self._report("the database is slow to answer")

    async def feedback(self, said: Feedback) -> None:
        """Store feedback. Raises UnknownRequest, or LogUnavailable where it could not be stored.

        Feedback on an answer whose row still waits is kept with it.
        """
        if self._ids[said.request_id]:
            if self._keep(said) is None:
                raise LogUnavailable
            return
        try:
            await asyncio.to_thread(add_feedback, self._log, said)
        except SQLAlchemyError as fault:
            self._metrics.log_failures.inc()
            raise LogUnavailable(reason(fault)) from fault

    async def close(self) -> None:
        """Write what waits, in one last try, and say how much could not be written."""
        if self._writer:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        while self._rows and await self._write_group():
            pass
        if self._rows:
            logger.error("%d rows were not written to the prediction log: %s", len(self._rows), self._trouble)
        self._thread.shutdown(wait=False)

    def shadow(self, said: Shadow) -> None:
        """Hand over what a shadow would have answered."""
        self._keep(said)

    def failed(self, failure: Failure) -> None:
        """Hand over that a request got no answer."""
        self._keep(failure)

    def _keep(self, content: Prediction | Feedback | Shadow | Failure) -> _Row | None:
        if len(self._rows) >= self._capacity:
            self._lose(f"{self._capacity} rows wait already")
            return None
        row = _Row(content, asyncio.get_running_loop().create_future())
        self._rows.append(row)
        self._ids[row.request_id] += 1
        self._some.set()
        return row

    async def _write_forever(self) -> None:
        while True:
            await self._some.wait()
            if not await self._write_group():
                await asyncio.sleep(self._retry)

    async def _write_group(self) -> bool:
        """Write the oldest rows. False where the database failed and they wait still."""
        group = list(islice(self._rows, _GROUP))
        try:
            await self._store_group(group)
        except SQLAlchemyError as fault:
            self._metrics.log_failures.inc()
            self._report(reason(fault))
            self._release(group)
            return False
        self._forget(group)
        self._recovered()
        return True

    async def _store_group(self, group: Sequence[_Row]) -> None:
        """Where the database refuses a row for what it holds, find it, so that it holds up no other."""
        try:
            await self._store(group)
        except _REFUSED as fault:
            if len(group) == 1:
                self._lose(reason(fault))
                return
            for row in group:
                await self._store_group([row])

    async def _store(self, group: Sequence[_Row]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, _store, self._log, group)

    def _forget(self, group: Sequence[_Row]) -> None:
        for row in group:
            self._rows.popleft()
            self._ids[row.request_id] -= 1
            if not self._ids[row.request_id]:
                del self._ids[row.request_id]
        self._release(group)
        if not self._rows:
            self._some.clear()

    def _release(self, group: Sequence[_Row]) -> None:
        """Let the answers go that wait for these rows."""
        for row in group:
            if not row.written.done():
                row.written.set_result(None)

    def _lose(self, why: str) -> None:
        self._lost += 1
        self._metrics.log_lost.inc()
        logger.error("a row for the prediction log is lost: %s", why)

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("the prediction log does not take rows, which wait in memory: %s", trouble)
        self._trouble = trouble

    def _recovered(self) -> None:
        if self._trouble:
            logger.warning("the prediction log takes rows again")
        self._trouble = None


def _store(log: Engine, group: Sequence[_Row]) -> None:
    record_predictions(log, [row.content for row in group if isinstance(row.content, Prediction)])
    for row in group:
        if isinstance(row.content, Feedback):
            add_feedback(log, row.content)
        elif not isinstance(row.content, Prediction):
            with log.connect().execution_options(writes=True) as connection, connection.begin():
                table = shadows if isinstance(row.content, Shadow) else failures
                connection.execute(insert(table), row.content.model_dump())

"""Between the gateway and the prediction log: rows go to a spool at once, and from there to the database in groups.

An answer goes out once its row is in the spool, which outlives the process; what a dead process left there, the
next one writes. See docs/serving.md, "The log".
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, from_json
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from perpetune.gateway.recording.spool import Spool
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.params import LogParams
from perpetune.prediction_log.hash_position import is_sampled
from perpetune.prediction_log.log import UnknownRequest, add_feedback, delete_older, reason, record_rows
from perpetune.prediction_log.redaction import Redactor, group_key
from perpetune.prediction_log.storable import storable, storable_tree
from perpetune.records import Failure, Feedback, Prediction, Shadow

logger = logging.getLogger(__name__)

Row = Prediction | Feedback | Shadow | Failure

_GROUP = 500  # rows a transaction
_SLOW = 1.0  # seconds of one write after which it is said that the database is slow
_SWEEP = 3600.0  # seconds between deletions of old rows
_ADOPT = 60.0  # seconds between looks for what gateways left that have died since
_OTHERS = 0.15  # seconds in which another gateway's answer reaches the database
_KINDS: dict[str, type[Row]] = {
    "prediction": Prediction,
    "feedback": Feedback,
    "shadow": Shadow,
    "failure": Failure,
}
# What the database says of a row, or the driver of a value (ValueError, OverflowError), rather than of itself.
_REFUSED = (DataError, IntegrityError, ValueError, OverflowError)
_EVERYTHING = LogParams(sample_rate=1, retention_days=None, redact=False)


class LogUnavailable(Exception):
    """The log did not take the feedback; it is the sender's to send again."""


class NotStored(UnknownRequest):
    """Feedback names a request that is not among the share that is stored."""


@dataclass(frozen=True)
class LogState:
    waiting: int
    lost: int
    trouble: str | None
    spool: str | None = None

    def __str__(self) -> str:
        lost = f"{self.lost} rows lost" if self.lost else ""
        waiting = f"{self.waiting} rows waiting, {self.trouble}" if self.trouble else ""
        return "; ".join(part for part in (waiting, self.spool, lost) if part) or "ok"


class Recorder:
    """Takes rows in any thread, and writes them to the log from one of its own.

    `spool` is the folder where rows wait, `capacity` how many may (without a folder 5,000, in memory);
    `group_seconds` is how long a group of rows gathers, `retry_seconds` how long a failing database is left alone,
    `adopt_seconds` how long what a gateway left that has died waits at most for one that lives.
    Raises PerpetuneError where personal data is to be replaced and Presidio is missing.
    """

    def __init__(
        self,
        log: Engine,
        metrics: Metrics,
        *,
        task: str | None = None,
        params: LogParams | None = None,
        spool: Path | None = None,
        capacity: int = 200_000,
        group_seconds: float = 0.03,
        retry_seconds: float = 1.0,
        adopt_seconds: float = _ADOPT,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._task = task
        self._params = params or _EVERYTHING
        self._group = group_seconds
        self._retry = retry_seconds
        self._adopt_every = adopt_seconds
        self._adopt_at = 0.0
        self._redactor = Redactor(group_key(spool)) if self._params.redact else None
        self._redacting = ThreadPoolExecutor(1, thread_name_prefix="redaction")
        self._spool = Spool(spool, capacity=capacity)
        self._folder = spool
        self._ids: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._lost = 0
        self._trouble: str | None = None
        self._writing_since: float | None = None
        self._sweep_at = 0.0
        self._thread = threading.Thread(target=self._write_forever, name="prediction-log", daemon=True)
        self._started = False
        metrics.log_waiting.set_function(lambda: self._spool.rows)
        metrics.log_in_memory.set_function(lambda: self._spool.in_memory)

    def start(self) -> None:
        """Adopt what dead gateways left, and begin to write."""
        self._adopt()
        self._some.set()
        self._started = True
        self._thread.start()

    @property
    def state(self) -> LogState:
        since = self._writing_since
        slow = "the database is slow to answer" if since and time.monotonic() - since > _SLOW else None
        stopped = "the writer stopped" if self._started and not self._thread.is_alive() else None
        return LogState(self._spool.rows, self._lost, stopped or self._trouble or slow, self._spool.trouble)

    async def record(self, prediction: Prediction) -> None:
        """Hand over an answer; it is in the spool when this returns, unless there is no room (it is lost then)."""
        if self.stores(prediction.id):
            self._keep(await self._redacted(prediction))

    def failed(self, failure: Failure) -> None:
        """Hand over a request that was not answered."""
        if self.stores(failure.id):
            self._keep(failure)

    def shadow(self, shadow: Shadow) -> None:
        """Hand over what a version on trial would have said, after its prediction was recorded."""
        if not self.stores(shadow.request_id):
            return
        if self._redactor:
            self._redacting.submit(lambda: self._keep(self._redact(shadow)))
        else:
            self._keep(shadow)

    async def feedback(self, said: Feedback) -> None:
        """Store feedback. Raises UnknownRequest (NotStored), or LogUnavailable where it could not be stored.

        Feedback on an answer whose row still waits is kept with it, on the disk: what is said to be recorded must not
        end with the process.
        """
        said = await self._redacted(said)
        if self._ids[said.request_id]:
            if not self._wait_on_disk(said):
                raise LogUnavailable
            return
        try:
            await self._add(said)
        except SQLAlchemyError as fault:
            self._metrics.log_failures.inc()
            raise LogUnavailable(reason(fault)) from fault

    def stores(self, request_id: str) -> bool:
        """Whether this request is among the share that is stored: the same on every gateway."""
        return self._params.sample_rate >= 1 or is_sampled(storable(request_id), self._params.sample_rate)

    def flush(self, seconds: float = 10.0) -> None:
        """Wait until what was handed over is in the database. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        self._redacting.submit(int).result(seconds)
        while self._spool.rows:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._spool.rows} rows still wait: {self.state}")
            time.sleep(0.005)

    async def close(self) -> None:
        """Write what waits, in one last try, and say how much could not be written."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._redacting.shutdown()
        self._stopping.set()
        self._some.set()
        if self._started:
            self._thread.join()
        while self._spool.rows and self._write_group():
            pass
        if self._spool.rows:
            kept = self._spool.rows - self._spool.in_memory
            logger.error(
                "%d rows were not written to the prediction log: %s; %d of them stay in %s for the next gateway",
                self._spool.rows,
                self._trouble,
                kept,
                self._folder,
            )
        self._spool.close()

    async def _redacted(self, row: Any) -> Any:
        if self._redactor is None:
            return row
        return await asyncio.get_running_loop().run_in_executor(self._redacting, self._redact, row)

    def _redact(self, row: Any) -> Any:
        assert self._redactor
        return self._redactor.row(row)

    async def _add(self, said: Feedback) -> None:
        try:
            await asyncio.to_thread(add_feedback, self._log, said)
        except UnknownRequest:
            if not self.stores(said.request_id):
                raise NotStored(said.request_id) from None
            # Another gateway may have answered just now.
            await asyncio.sleep(_OTHERS)
            await asyncio.to_thread(add_feedback, self._log, said)

    def _keep(self, row: Row) -> None:
        with self._lock:
            if not self._spool.append(_line(row)):
                self._lose("there is no room for more that wait")
                return
            self._count(row, 1)
        if not self._some.is_set():
            self._some.set()

    def _wait_on_disk(self, row: Row) -> bool:
        with self._lock:
            if not self._spool.append(_line(row), must_survive=self._folder is not None):
                return False
            self._count(row, 1)
        self._some.set()
        return True

    def _count(self, row: Row, by: int) -> None:
        if isinstance(row, Prediction | Feedback):
            name = row.id if isinstance(row, Prediction) else row.request_id
            self._ids[name] += by
            if self._ids[name] <= 0:
                del self._ids[name]

    def _adopt(self) -> None:
        """Called where no other thread reads the spool: before the writer starts, and then by it alone."""
        self._adopt_at = time.monotonic() + self._adopt_every
        if rows := self._spool.adopt(self._adopted):
            logger.warning("%d rows that another gateway left are written to the log", rows)

    def _adopted(self, line: bytes) -> None:
        try:
            row = _row(line)
        except ValueError:
            return  # it is reported when its turn comes
        with self._lock:
            self._count(row, 1)

    def _write_forever(self) -> None:
        while not self._stopping.is_set():
            self._some.wait(1.0)
            self._some.clear()
            self._stopping.wait(self._group)
            if time.monotonic() >= self._adopt_at:
                self._adopt()
            while self._spool.rows and not self._stopping.is_set():
                self._stopping.wait(self._group if self._write_group() else self._retry)
            self._sweep()

    def _write_group(self) -> bool:
        """Write the oldest rows. False where the database failed and they wait still."""
        self._writing_since = time.monotonic()
        try:
            lines = self._spool.read(_GROUP)
            rows = self._parsed(lines)
            self._store(rows)
        except SQLAlchemyError as fault:
            self._metrics.log_failures.inc()
            self._report(reason(fault))
            self._spool.sync()
            return False
        finally:
            self._writing_since = None
        with self._lock:
            self._spool.drop(lines)
            for row in rows:
                self._count(row, -1)
        self._recovered()
        return True

    def _parsed(self, lines: Sequence[bytes]) -> list[Row]:
        rows = []
        for line in lines:
            try:
                rows.append(_row(line))
            except ValueError:
                self._lose("a line of the spool cannot be read")
        return rows

    def _store(self, rows: Sequence[Row]) -> None:
        """Where the database refuses a row for what it holds, find it, so that it holds up no other."""
        try:
            record_rows(self._log, rows)
        except _REFUSED as fault:
            if len(rows) == 1:
                self._lose(reason(fault))
                return
            half = len(rows) // 2
            self._store(rows[:half])
            self._store(rows[half:])

    def _sweep(self) -> None:
        """Delete a batch of the rows that are too old, when it is time."""
        if self._params.retention_days is None or self._task is None or time.monotonic() < self._sweep_at:
            return
        before = datetime.now(UTC) - timedelta(days=self._params.retention_days)
        try:
            if delete_older(self._log, self._task, before):
                self._some.set()
                return
        except SQLAlchemyError as fault:
            logger.warning("old rows of the prediction log could not be deleted: %s", reason(fault))
        self._sweep_at = time.monotonic() + _SWEEP

    def _lose(self, why: str) -> None:
        self._lost += 1
        self._metrics.log_lost.inc()
        logger.error("a row for the prediction log is lost: %s", why)

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("the prediction log does not take rows, which wait: %s", trouble)
        self._trouble = trouble

    def _recovered(self) -> None:
        if self._trouble:
            logger.warning("the prediction log takes rows again")
        self._trouble = None


def _line(row: Row) -> bytes:
    kind = type(row).__name__.lower()
    try:
        content = row.model_dump_json()
    except PydanticSerializationError:  # half a character, which UTF-8 cannot write
        content = type(row).model_validate(storable_tree(row.model_dump())).model_dump_json()
    return f'{{"{kind}":{content}}}\n'.encode()


def _row(line: bytes) -> Row:
    """Raises ValueError."""
    content = from_json(line)
    if not isinstance(content, dict) or len(content) != 1:
        raise ValueError("not a row")
    [(kind, values)] = content.items()
    if kind not in _KINDS:
        raise ValueError(f"no kind of row is called {kind}")
    return _KINDS[kind].model_validate(values)

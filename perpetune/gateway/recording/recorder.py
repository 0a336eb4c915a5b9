"""Writing rows to the prediction log through a spool.

An answer is sent once its row is in the spool, which survives the process. A writer thread moves rows to the database
in groups; rows of a dead process are adopted by the next one. See docs/guides/prediction-log.md.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
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
from perpetune.gateway.recording.spooled_answers import SpooledAnswers
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.params import LogParams
from perpetune.prediction_log.database import error_text
from perpetune.prediction_log.hash_sampling import is_sampled
from perpetune.prediction_log.redaction import Redactor, group_key
from perpetune.prediction_log.storable import storable, storable_tree
from perpetune.prediction_log.writes import (
    UnknownChoice,
    UnknownRequest,
    add_feedback_rows,
    delete_older,
    record_rows,
    require_choice,
)
from perpetune.records import Failure, Feedback, Prediction, Shadow

logger = logging.getLogger(__name__)

Row = Prediction | Feedback | Shadow | Failure

# Per transaction: some 3 ms, in which requests share the interpreter with the writer.
_GROUP_ROWS = 64
_BETWEEN_FULL_GROUPS = 0.005  # seconds, which leave the interpreter to requests
_SLOW_SECONDS = 1.0  # a longer write is reported as a slow database
_SWEEP_SECONDS = 3600.0  # between deletions of old rows
_ADOPT_SECONDS = 60.0  # between searches for spool files of dead gateways
OTHER_GATEWAY_SECONDS = 0.3  # in which another gateway's answer reaches the database: a group and its transaction
_KINDS: dict[str, type[Row]] = {
    "prediction": Prediction,
    "feedback": Feedback,
    "shadow": Shadow,
    "failure": Failure,
}
# Errors caused by a row's content, raised by the database or by the driver (ValueError, OverflowError).
_BAD_ROW_ERRORS = (DataError, IntegrityError, ValueError, OverflowError)
_LOG_ALL = LogParams(sample_rate=1, retention_days=None, redact=False)


class LogUnavailable(Exception):
    """The feedback could not be stored; the client should retry."""


class NotStored(UnknownRequest):
    """Feedback names a request that is not in the stored sample."""


FeedbackError = UnknownRequest | LogUnavailable
"""Why feedback was not stored."""


@dataclass(frozen=True)
class LogState:
    waiting: int
    lost: int
    error: str | None
    spool: str | None = None

    def __str__(self) -> str:
        lost = f"{self.lost} rows lost" if self.lost else ""
        waiting = f"{self.waiting} rows waiting, {self.error}" if self.error else ""
        return "; ".join(part for part in (waiting, self.spool, lost) if part) or "ok"


class Recorder:
    """Accepts rows in any thread and writes them to the log in a background thread.

    `spool` is the folder for waiting rows, `capacity` their maximum number (5,000 in memory without a folder),
    `group_seconds` the time to collect a group, `retry_seconds` the pause after a database error, and `adopt_seconds`
    the interval of searching for spool files of dead gateways. Raises PerpetuneError if log.redact is set and Presidio
    is missing.
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
        group_seconds: float = 0.2,
        retry_seconds: float = 1.0,
        adopt_seconds: float = _ADOPT_SECONDS,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._task = task
        self._params = params or _LOG_ALL
        self._group = group_seconds
        self._retry = retry_seconds
        self._adopt_every = adopt_seconds
        self._adopt_at = 0.0
        self._redactor = Redactor(group_key(spool)) if self._params.redact else None
        self._redacting = ThreadPoolExecutor(1, thread_name_prefix="redaction")
        self._spool = Spool(spool, capacity=capacity)
        self._folder = spool
        self._spooled = SpooledAnswers()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lost = 0
        self._error: str | None = None
        self._writing_since: float | None = None
        self._sweep_at = 0.0
        self._thread = threading.Thread(target=self._write_forever, name="prediction-log", daemon=True)
        self._started = False
        metrics.log_waiting.set_function(lambda: self._spool.rows)
        metrics.log_in_memory.set_function(lambda: self._spool.in_memory)

    def start(self) -> None:
        """Adopt rows of dead gateways, and start the writer thread."""
        self._adopt()
        self._wake.set()
        self._started = True
        self._thread.start()

    @property
    def state(self) -> LogState:
        since = self._writing_since
        slow = "the database is slow to answer" if since and time.monotonic() - since > _SLOW_SECONDS else None
        stopped = "the writer stopped" if self._started and not self._thread.is_alive() else None
        return LogState(self._spool.rows, self._lost, stopped or self._error or slow, self._spool.error)

    async def record(self, prediction: Prediction) -> None:
        """Record an answer. It is in the spool when this returns, or lost if the spool is full."""
        if self.stores(prediction.id):
            self._spool_row(await self._redacted(prediction))

    def failed(self, failure: Failure) -> None:
        """Record a request that failed."""
        if self.stores(failure.id):
            self._spool_row(failure)

    def shadow(self, shadow: Shadow) -> None:
        """Record a shadow answer, after its prediction was recorded."""
        if not self.stores(shadow.request_id):
            return
        if self._redactor:
            self._redacting.submit(lambda: self._spool_row(self._redact(shadow)))
        else:
            self._spool_row(shadow)

    def spooled(self, request_id: str) -> str | None:
        """The id of the answer with this id, or with this id of the client's, if it is still in the spool."""
        with self._lock:
            found = self._spooled.find(request_id)
        return found[0] if found else None

    async def feedback(self, feedback: Feedback) -> str:
        """Store feedback; returns the id of its answer.

        Raises UnknownRequest, NotStored, UnknownChoice, or LogUnavailable if it could not be stored.
        """
        [found] = await self.feedback_rows([feedback])
        if isinstance(found, Exception):
            raise found
        return found

    async def feedback_rows(self, rows: Sequence[Feedback]) -> list[str | FeedbackError]:
        """Store feedback; returns the id of each answer, or the error that `feedback` would raise.

        Feedback on an answer that is still spooled is spooled too, on disk, so that acknowledged feedback survives the
        process.
        """
        rows = await self._redacted_rows(rows)
        found: dict[int, str | FeedbackError] = {}
        for number, row in enumerate(rows):
            with self._lock:
                spooled = self._spooled.find(row.request_id)
            if spooled is not None:
                found[number] = self._spool_feedback(row, *spooled)
        rest = [number for number in range(len(rows)) if number not in found]
        found |= dict(zip(rest, await self._add([rows[number] for number in rest]), strict=True))
        return [found[number] for number in range(len(rows))]

    def _spool_feedback(self, row: Feedback, answer: str, choices: int) -> str | FeedbackError:
        try:
            require_choice(row, choices)
        except UnknownChoice as fault:
            return fault
        if not self._spool_on_disk(row.model_copy(update={"request_id": answer})):
            return LogUnavailable()
        return answer

    def stores(self, request_id: str) -> bool:
        """Whether this request is in the stored sample (log.sample_rate), the same on every gateway."""
        return self._params.sample_rate >= 1 or is_sampled(storable(request_id), self._params.sample_rate)

    def flush(self, seconds: float = 10.0) -> None:
        """Wait until all recorded rows are in the database. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        self._redacting.submit(int).result(seconds)
        while self._spool.rows:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._spool.rows} rows still wait: {self.state}")
            time.sleep(0.005)

    async def close(self) -> None:
        """Try once more to write the waiting rows, and log how many could not be written."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._redacting.shutdown()
        self._stopping.set()
        self._wake.set()
        if self._started:
            self._thread.join()
        while self._spool.rows and self._write_group():
            pass
        if self._spool.rows:
            kept = self._spool.rows - self._spool.in_memory
            logger.error(
                "%d rows were not written to the prediction log: %s; %d of them remain in %s for the next gateway",
                self._spool.rows,
                self._error,
                kept,
                self._folder,
            )
        self._spool.close()

    async def _redacted_rows(self, rows: Sequence[Feedback]) -> Sequence[Feedback]:
        if self._redactor is None:
            return rows
        redact = self._redact
        return await asyncio.get_running_loop().run_in_executor(self._redacting, lambda: [redact(row) for row in rows])

    async def _redacted(self, row: Any) -> Any:
        if self._redactor is None:
            return row
        return await asyncio.get_running_loop().run_in_executor(self._redacting, self._redact, row)

    def _redact(self, row: Any) -> Any:
        assert self._redactor
        return self._redactor.row(row)

    async def _add(self, rows: Sequence[Feedback]) -> list[str | FeedbackError]:
        """Store feedback on answers in the database."""
        if not rows:
            return []
        found: list[str | FeedbackError] = [*await self._add_once(rows)]
        unknown = [number for number, answer in enumerate(found) if type(answer) is UnknownRequest]
        for number in unknown:
            if not self.stores(rows[number].request_id):
                found[number] = NotStored(rows[number].request_id)
        if late := [number for number in unknown if type(found[number]) is UnknownRequest]:
            # Another gateway may have answered just now.
            await asyncio.sleep(OTHER_GATEWAY_SECONDS)
            for number, answer in zip(late, await self._add_once([rows[number] for number in late]), strict=True):
                found[number] = answer
        return found

    async def _add_once(self, rows: Sequence[Feedback]) -> Sequence[str | FeedbackError]:
        try:
            return await asyncio.to_thread(add_feedback_rows, self._log, rows, self._task)
        except SQLAlchemyError as fault:
            self._metrics.log_failures.inc()
            unavailable = LogUnavailable(error_text(fault))
            unavailable.__cause__ = fault
            return [unavailable] * len(rows)

    def _spool_row(self, row: Row) -> None:
        with self._lock:
            if not self._spool.append(_line(row)):
                self._count_lost("the spool is full")
                return
            self._count(row, 1)
        if not self._wake.is_set():
            self._wake.set()

    def _spool_on_disk(self, row: Row) -> bool:
        with self._lock:
            if not self._spool.append(_line(row), must_survive=self._folder is not None):
                return False
            self._count(row, 1)
        self._wake.set()
        return True

    def _count(self, row: Row, by: int) -> None:
        if isinstance(row, Prediction | Feedback):
            self._spooled.count(row, by)

    def _adopt(self) -> None:
        """Called before the writer starts, then only by the writer, so that no other thread reads the spool."""
        self._adopt_at = time.monotonic() + self._adopt_every
        if rows := self._spool.adopt(self._count_adopted):
            logger.warning("%d rows of another gateway that has ended are written to the log", rows)

    def _count_adopted(self, line: bytes) -> None:
        try:
            row = _row(line)
        except ValueError:
            return  # reported when it is written
        with self._lock:
            self._count(row, 1)

    def _write_forever(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(1.0)
            self._wake.clear()
            self._stopping.wait(self._group)
            if time.monotonic() >= self._adopt_at:
                self._adopt()
            while self._spool.rows and not self._stopping.is_set():
                self._stopping.wait(self._pause() if self._write_group() else self._retry)
            self._sweep()

    def _pause(self) -> float:
        """The time to collect the next group; short if there is one already."""
        return _BETWEEN_FULL_GROUPS if self._spool.rows >= _GROUP_ROWS else self._group

    def _write_group(self) -> bool:
        """Write the oldest rows; False if the database failed and they still wait."""
        self._writing_since = time.monotonic()
        try:
            lines = self._spool.read(_GROUP_ROWS)
            rows = self._parsed(lines)
            self._store(rows)
        except SQLAlchemyError as fault:
            self._metrics.log_failures.inc()
            self._report(error_text(fault))
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
                self._count_lost("a line of the spool cannot be read")
        return rows

    def _store(self, rows: Sequence[Row]) -> None:
        """Store rows; if one is invalid, find it by bisection, so that it does not block the others."""
        try:
            record_rows(self._log, rows)
        except _BAD_ROW_ERRORS as fault:
            if len(rows) == 1:
                self._count_lost(error_text(fault))
                return
            half = len(rows) // 2
            self._store(rows[:half])
            self._store(rows[half:])

    def _sweep(self) -> None:
        """Delete a batch of rows older than log.retention_days, if it is time."""
        if self._params.retention_days is None or self._task is None or time.monotonic() < self._sweep_at:
            return
        before = datetime.now(UTC) - timedelta(days=self._params.retention_days)
        try:
            if delete_older(self._log, self._task, before):
                self._wake.set()
                return
        except SQLAlchemyError as fault:
            logger.warning("old rows of the prediction log could not be deleted: %s", error_text(fault))
        self._sweep_at = time.monotonic() + _SWEEP_SECONDS

    def _count_lost(self, why: str) -> None:
        self._lost += 1
        self._metrics.log_lost.inc()
        logger.error("a row for the prediction log is lost: %s", why)

    def _report(self, error: str) -> None:
        if error != self._error:
            logger.warning("the prediction log cannot be written, rows wait: %s", error)
        self._error = error

    def _recovered(self) -> None:
        if self._error:
            logger.warning("the prediction log can be written again")
        self._error = None


def _line(row: Row) -> bytes:
    kind = type(row).__name__.lower()
    try:
        content = row.model_dump_json()
    except PydanticSerializationError:  # a lone surrogate, which UTF-8 cannot encode
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

"""The Prefect server, through its REST API: start a deployment, follow its run.

Spoken to over HTTP so that nothing in this package imports Prefect, which takes seconds.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain, repeat

import httpx

from perpetune.errors import PerpetuneError
from perpetune.runtime.events import resource
from perpetune.settings import Settings

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PAGE = 200
# A run's process sends its lines every two seconds, so that the last come after the run has ended; one that was killed
# sends none any more.
QUIET_SECONDS = 10.0
LATE = timedelta(seconds=30)
BESIDE_ANOTHER = "concurrency limit"  # is in what Prefect says of a run that it cancelled because another was under way
PREFECT_SAYS = ("Beginning flow run", "Finished in state", "View at ")
# Prefect answers so while its database is locked; it asks its own client to try again too. A writer waits a minute for
# SQLite's lock, and meanwhile the server may answer nobody.
BUSY = {429, 502, 503}
TIMEOUT, PATIENCE = 30.0, 90.0  # seconds: for one answer, and for one that is no refusal
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class FlowRun:
    """A flow run and how it stands; `message` is Prefect's own word on the state."""

    id: str
    name: str
    state: str
    message: str
    url: str

    @property
    def final(self) -> bool:
        return self.state in FINAL

    def fault(self) -> PerpetuneError | None:
        """Why an ended run has not done its work; None if it has."""
        if self.state == "COMPLETED":
            return None
        if self.state == "CANCELLED" and BESIDE_ANOTHER in self.message:
            return PerpetuneError(
                f"{self.name} did not begin: another run of the same kind was under way",
                where=self.url,
                do="start it again when that has ended",
            )
        return PerpetuneError(f"{self.name} ended as {self.state.lower()}: {self.message}", where=self.url)


@dataclass(frozen=True)
class LogLine:
    """A line of a run's log; `of_task` says whether one of its tasks wrote it."""

    id: str
    time: datetime
    message: str
    of_task: bool

    @property
    def is_for_people(self) -> bool:
        return not self.message.startswith(PREFECT_SAYS) and "Traceback (most recent call last)" not in self.message

    @property
    def is_last(self) -> bool:
        """Whether the engine ends the log of a run with it."""
        return not self.of_task and self.message.startswith("Finished in state")


def _log_line(found: Mapping[str, object]) -> LogLine:
    return LogLine(
        id=str(found["id"]),
        time=datetime.fromisoformat(str(found["timestamp"])),
        message=str(found["message"]),
        of_task=found.get("task_run_id") is not None,
    )


@cache
def _client() -> httpx.Client:
    """One for all calls: making one reads certificates, which costs more than the call."""
    return httpx.Client(timeout=TIMEOUT)


@dataclass(frozen=True)
class Prefect:
    """The server whose API is at `url`."""

    url: str

    def start(self, deployment: str, parameters: Mapping[str, object]) -> FlowRun:
        """Start a run of `FLOW/DEPLOYMENT`. Raises PerpetuneError where server or deployment is missing."""
        found = self._get(f"/deployments/name/{deployment}")
        if found is None:
            raise PerpetuneError(
                f"Prefect has no deployment {deployment}", where=self.url, do="start the worker: `perpetune up`"
            )
        body = {"parameters": dict(parameters), "idempotency_key": str(uuid.uuid4())}
        created = self._call("POST", f"/deployments/{found['id']}/create_flow_run", body)
        return self._flow_run(created.json())

    def check(self, run: FlowRun) -> FlowRun:
        """The run as it stands now."""
        found = self._get(f"/flow_runs/{run.id}")
        if found is None:
            raise PerpetuneError(f"the flow run {run.name} was deleted", where=self.url)
        return self._flow_run(found)

    def runs_of(self, deployment: str, limit: int = 20) -> list[FlowRun]:
        """The newest runs of `FLOW/DEPLOYMENT` that have begun, newest first."""
        found = self._get(f"/deployments/name/{deployment}")
        if found is None:
            return []
        body = {
            "deployments": {"id": {"any_": [found["id"]]}},
            "flow_runs": {"start_time": {"is_null_": False}},
            "sort": "START_TIME_DESC",
            "limit": limit,
        }
        return [self._flow_run(each) for each in self._call("POST", "/flow_runs/filter", body).json()]

    def follow(self, run: FlowRun, say: Callable[[str], None], poll_seconds: float = 1.0) -> FlowRun:
        """Pass on what the flow says until its run has ended and its last line has come, and return how.

        Tracebacks stay in Prefect's log.
        """
        told: set[str] = set()
        newest, on_delta = datetime.fromtimestamp(0, UTC), time.monotonic()
        while True:
            now = self.check(run)
            lines = [line for line in self._logs(run, newest) if line.id not in told]
            for line in lines:
                if line.is_for_people:
                    say(line.message)
            told |= {line.id for line in lines}
            newest = max([newest, *(line.time for line in lines)])
            if any(line.is_last for line in lines) and (ended := self.check(run)).final:
                return ended
            if lines or not now.final:
                on_delta = time.monotonic()
            elif time.monotonic() - on_delta >= QUIET_SECONDS:
                return now
            time.sleep(poll_seconds)

    def emit(self, event: str, task: str, payload: Mapping[str, object]) -> None:
        """Tell the server that something happened to the task's model, as `perpetune.tasks.events` does within a flow."""
        happened = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": resource(task),
            "payload": dict(payload),
        }
        self._call("POST", "/events", [happened])

    def _logs(self, run: FlowRun, newest: datetime) -> list[LogLine]:
        """The lines since `newest` and some seconds before: those of several processes do not arrive in order."""
        since = (newest - LATE).isoformat()
        logs = {"flow_run_id": {"any_": [run.id]}, "timestamp": {"after_": since}}
        lines: list[LogLine] = []
        while True:
            body = {"logs": logs, "sort": "TIMESTAMP_ASC", "offset": len(lines), "limit": PAGE}
            page = self._call("POST", "/logs/filter", body).json()
            lines += [_log_line(each) for each in page]
            if len(page) < PAGE:
                return lines

    def _flow_run(self, found: Mapping[str, object]) -> FlowRun:
        state = found.get("state") or {}
        assert isinstance(state, Mapping)
        return FlowRun(
            id=str(found["id"]),
            name=str(found["name"]),
            state=str(state.get("type") or "PENDING"),
            message=str(state.get("message") or ""),
            url=f"{Settings().prefect_ui_url or self.url.removesuffix('/api')}/runs/flow-run/{found['id']}",
        )

    def _get(self, path: str) -> dict[str, object] | None:
        answer = self._call("GET", path)
        return None if answer.status_code == 404 else dict(answer.json())

    def _call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Asked again while Prefect is busy: each request only reads, or has an id by which it happens once."""
        until = time.monotonic() + PATIENCE
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            try:
                answer = _client().request(method, f"{self.url}{path}", json=body)
            except httpx.ReadTimeout as fault:
                if time.monotonic() >= until:
                    raise self._unanswered(fault) from fault
                continue
            except httpx.HTTPError as fault:
                raise self._unanswered(fault) from fault
            if answer.status_code not in BUSY or time.monotonic() >= until:
                break
            time.sleep(pause)
        if answer.status_code >= 400 and answer.status_code != 404:
            raise PerpetuneError(f"Prefect refused {method} {path}: {answer.text[:300]}", where=self.url)
        return answer

    def _unanswered(self, fault: httpx.HTTPError) -> PerpetuneError:
        return PerpetuneError(
            f"the Prefect server does not answer at {self.url} ({type(fault).__name__})",
            where="PREFECT_API_URL",
            do="start it with `perpetune up`, or correct the address",
        )

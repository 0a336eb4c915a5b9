"""A client of Prefect's REST API: start a deployment, follow its run, emit events.

It uses HTTP so that nothing in this package imports Prefect, which takes seconds.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain, repeat

import httpx

from perpetune.errors import PerpetuneError
from perpetune.proxies import is_on_this_machine
from perpetune.runtime.events import resource
from perpetune.settings import Settings

_CREDENTIALS = (
    "set PREFECT_API_KEY (Prefect Cloud) or PREFECT_API_AUTH_STRING (user:password of a server); "
    "PREFECT_CLIENT_CUSTOM_HEADERS adds headers of a proxy"
)
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PAGE = 200
# A run sends its log every two seconds, so the last lines come after its end; a killed run sends none.
LOG_TIMEOUT = 10.0
LATE = timedelta(seconds=30)
CONCURRENCY_MESSAGE = "concurrency limit"  # in Prefect's message of a run cancelled by the concurrency limit
PREFECT_LINES = ("Beginning flow run", "Finished in state", "View at ")
# Prefect's answers while its database is locked; its own client retries too. A writer waits up to a minute for SQLite's
# lock, and the server may not answer meanwhile.
BUSY = {429, 502, 503}
TIMEOUT, RETRY_SECONDS = 30.0, 90.0  # of one request, and of all retries
OLD_ENTRYPOINTS = "flows."  # of deployments that were registered before the flows lay in perpetune.flows
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/([^/]+)/workspaces/([^/]+)/?$")


@dataclass(frozen=True)
class FlowRun:
    """A flow run and its state; `message` is Prefect's message of the state."""

    id: str
    name: str
    state: str
    message: str
    url: str

    @property
    def final(self) -> bool:
        return self.state in FINAL

    def fault(self) -> PerpetuneError | None:
        """The error of an ended run; None if it completed."""
        if self.state == "COMPLETED":
            return None
        if self.state == "CANCELLED" and CONCURRENCY_MESSAGE in self.message:
            return PerpetuneError(
                f"{self.name} did not start because another run of the deployment was running",
                where=self.url,
                do="start it again when that one has ended",
            )
        return PerpetuneError(f"{self.name} ended as {self.state.lower()}: {self.message}", where=self.url)


@dataclass(frozen=True)
class LogLine:
    """A line of a run's log; `of_task` is True if a task run wrote it."""

    id: str
    time: datetime
    message: str
    of_task: bool

    @property
    def is_user_line(self) -> bool:
        return not self.message.startswith(PREFECT_LINES) and "Traceback (most recent call last)" not in self.message

    @property
    def is_last(self) -> bool:
        """Whether it is the last line of a run's log."""
        return not self.of_task and self.message.startswith("Finished in state")


def _log_line(found: Mapping[str, object]) -> LogLine:
    return LogLine(
        id=str(found["id"]),
        time=datetime.fromisoformat(str(found["timestamp"])),
        message=str(found["message"]),
        of_task=found.get("task_run_id") is not None,
    )


@cache
def _client(*, trust_env: bool) -> httpx.Client:
    """A shared client, because creating one reads certificates and takes longer than a request."""
    return httpx.Client(timeout=TIMEOUT, trust_env=trust_env)


def ui_url(api_url: str) -> str:
    """Where people open the pages of the Prefect server with this API: PREFECT_UI_URL, else by Prefect's own rule."""
    if (named := Settings().prefect_ui_url) is not None:
        return named.rstrip("/")
    cloud = _CLOUD.match(api_url)
    if cloud is not None:
        return f"https://app.prefect.cloud/account/{cloud[1]}/workspace/{cloud[2]}"
    return api_url.rstrip("/").removesuffix("/api")


@dataclass(frozen=True)
class Prefect:
    """A client of the Prefect API at `url`. Its methods raise PerpetuneError if the server does not answer or refuses."""

    url: str

    def start(self, deployment: str, parameters: Mapping[str, object]) -> FlowRun:
        """Start a run of `FLOW/DEPLOYMENT`. Raises PerpetuneError if there is no such deployment, or it is outdated."""
        found = self._get(f"/deployments/name/{deployment}")
        if found is None:
            raise PerpetuneError(
                f"Prefect has no deployment {deployment}", where=self.url, do="start the worker: `perpetune up`"
            )
        entrypoint = str(found["entrypoint"])
        if entrypoint.startswith(OLD_ENTRYPOINTS):
            raise PerpetuneError(
                f"{deployment} starts {entrypoint}, which is perpetune.{entrypoint} now",
                where=self.url,
                do="register it again: `perpetune up`, or `python -m perpetune.flows deploy` for a work pool",
            )
        body = {"parameters": dict(parameters), "idempotency_key": str(uuid.uuid4())}
        created = self._call("POST", f"/deployments/{found['id']}/create_flow_run", body)
        return self._flow_run(created.json())

    def check(self, run: FlowRun) -> FlowRun:
        """The run with its current state. Raises PerpetuneError if it was deleted."""
        found = self._get(f"/flow_runs/{run.id}")
        if found is None:
            raise PerpetuneError(f"the flow run {run.name} was deleted", where=self.url)
        return self._flow_run(found)

    def runs_of(self, deployment: str, limit: int = 20) -> list[FlowRun]:
        """The newest started runs of `FLOW/DEPLOYMENT`, newest first."""
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

    def resume(self, flow_run_id: str, run_input: Mapping[str, object]) -> FlowRun:
        """Resume a suspended run with the answer to its form. Raises PerpetuneError if it does not wait for one any more."""
        found = self._get(f"/flow_runs/{flow_run_id}")
        if found is None:
            raise PerpetuneError(f"Prefect does not know the flow run {flow_run_id}", where=self.url)
        answer = self._call("POST", f"/flow_runs/{flow_run_id}/resume", {"run_input": dict(run_input)}).json()
        if answer["status"] != "ACCEPT":
            reason = (answer.get("details") or {}).get("reason") or "no reason given"
            raise PerpetuneError(f"Prefect did not resume {found['name']}: {reason}", where=self._flow_run(found).url)
        return self.check(self._flow_run(found))

    def follow(self, run: FlowRun, say: Callable[[str], None], poll_seconds: float = 1.0) -> FlowRun:
        """Pass the run's log lines to `say` until it has ended; returns the ended run.

        Tracebacks are left out; they are in Prefect's UI.
        """
        printed: set[str] = set()
        newest, last_change = datetime.fromtimestamp(0, UTC), time.monotonic()
        while True:
            now = self.check(run)
            lines = [line for line in self._logs(run, newest) if line.id not in printed]
            for line in lines:
                if line.is_user_line:
                    say(line.message)
            printed |= {line.id for line in lines}
            newest = max([newest, *(line.time for line in lines)])
            if any(line.is_last for line in lines) and (ended := self.check(run)).final:
                return ended
            if lines or not now.final:
                last_change = time.monotonic()
            elif time.monotonic() - last_change >= LOG_TIMEOUT:
                return now
            time.sleep(poll_seconds)

    def emit(self, event: str, task: str, payload: Mapping[str, object]) -> None:
        """Emit an event with the task's model as resource, as `perpetune.tasks.events` does within a flow."""
        emitted = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": resource(task),
            "payload": dict(payload),
        }
        self._call("POST", "/events", [emitted])

    def sent(self, automation: str, since: datetime) -> list[str | None]:
        """The results of an automation's actions since a time: None for each that was done, else why it failed."""
        occurred = {"since": since.isoformat(), "until": (datetime.now(UTC) + LATE).isoformat()}
        event = {"prefix": ["prefect.automation.action."]}
        found = self._call("POST", "/events/filter", {"filter": {"occurred": occurred, "event": event}, "limit": 50})
        ended = [
            each
            for each in found.json()["events"]
            if each["resource"].get("prefect.resource.name") == automation
            and each["event"].endswith(("executed", "failed"))
        ]
        return [
            None if each["event"].endswith("executed") else str(each["payload"].get("reason") or "no reason given")
            for each in ended
        ]

    def automations(self, prefix: str) -> list[Mapping[str, object]]:
        """The automations whose names begin with `prefix`."""
        found = self._call("POST", "/automations/filter", {"limit": PAGE}).json()
        return [each for each in found if str(each["name"]).startswith(prefix)]

    def _logs(self, run: FlowRun, newest: datetime) -> list[LogLine]:
        """The lines since `newest` less `LATE`, because lines of several processes arrive out of order."""
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
            url=f"{ui_url(self.url)}/runs/flow-run/{found['id']}",
        )

    def _get(self, path: str) -> dict[str, object] | None:
        answer = self._call("GET", path)
        return None if answer.status_code == 404 else dict(answer.json())

    def _call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Make a request, with retries while Prefect is busy: every request is idempotent."""
        until = time.monotonic() + RETRY_SECONDS
        headers = Settings().prefect_headers
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            try:
                answer = self._send(method, path, body, headers)
                if answer.status_code == 403 and "CSRF token" in answer.text:
                    answer = self._send(method, path, body, headers | self._csrf_headers(headers))
            except httpx.ReadTimeout as fault:
                if time.monotonic() >= until:
                    raise self._unanswered(fault) from fault
                continue
            except httpx.HTTPError as fault:
                raise self._unanswered(fault) from fault
            if answer.status_code not in BUSY or time.monotonic() >= until:
                break
            time.sleep(pause)
        if answer.status_code >= 300 and answer.status_code != 404:
            raise PerpetuneError(
                f"Prefect refused {method} {path} ({answer.status_code}): {answer.text[:300]}",
                where=self.url,
                do=_CREDENTIALS if answer.status_code in (401, 403) else None,
            )
        return answer

    def _send(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> httpx.Response:
        client = _client(trust_env=not is_on_this_machine(self.url))
        return client.request(method, f"{self.url.rstrip('/')}{path}", json=body, headers=headers)

    def _csrf_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """A token for one request to a server with PREFECT_SERVER_CSRF_PROTECTION_ENABLED; {} if it gives none."""
        ours = str(uuid.uuid4())
        answer = self._send("GET", f"/csrf-token?client={ours}", None, headers)
        return {"Prefect-Csrf-Client": ours, "Prefect-Csrf-Token": answer.json()["token"]} if answer.is_success else {}

    def _unanswered(self, fault: httpx.HTTPError) -> PerpetuneError:
        return PerpetuneError(
            f"the Prefect server does not answer at {self.url} ({type(fault).__name__})",
            where="PREFECT_API_URL",
            do="start it with `perpetune up`, or correct PREFECT_API_URL",
        )

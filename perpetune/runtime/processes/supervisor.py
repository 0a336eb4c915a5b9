"""A supervisor of child processes: start, health check, restart, stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from perpetune.errors import PerpetuneError
from perpetune.runtime.processes.process_tree import descendants, kill, kill_marked, new_mark, signal_group
from perpetune.runtime.processes.watchdog import Watchdog

# A busy machine takes ten times as long as an idle one.
START_SECONDS = 600.0
STOP_SECONDS = 10.0
MAX_BACKOFF = 30.0
LOG_SECONDS = 10.0
_PRIVILEGED = 1024


@dataclass(frozen=True)
class Service:
    """A service process: it is healthy if the URL `health` returns a status below 400, or while it runs without one.

    `page` is the URL for users; `start_seconds` is the time limit to become healthy; `folder` is the working directory,
    None for that of the supervisor.
    """

    name: str
    command: tuple[str, ...]
    port: int | None = None
    health: str | None = None
    page: str | None = None
    start_seconds: float = START_SECONDS
    folder: Path | None = None


@dataclass
class Child:
    """The process of a service and the number of its restarts."""

    service: Service
    log: Path
    process: subprocess.Popen[bytes]
    restarts: int = 0

    def alive(self) -> bool:
        return self.process.poll() is None

    def healthy(self) -> bool:
        return self.alive() and (self.service.health is None or answers(self.service.health))

    def descendants(self) -> list[psutil.Process]:
        try:
            return descendants(psutil.Process(self.process.pid))
        except psutil.NoSuchProcess:
            return []


class Supervisor:
    """Runs services in `folder`, with logs in `logs`, until the `with` block ends.

    A service that ends is reported and restarted with exponential back-off. The services inherit the open files `kept`.
    They end with this process, also if it is killed, and the caller's `files` are then deleted: see `watchdog`.
    """

    def __init__(
        self,
        folder: Path,
        logs: Path,
        environment: Mapping[str, str],
        report: Callable[[str], None],
        kept: Sequence[int] = (),
        files: Sequence[Path] = (),
    ) -> None:
        self.children: list[Child] = []
        self._folder = folder
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._report = report
        self._kept = tuple(kept)
        self._mark = new_mark()
        self._watchdog = Watchdog(self._mark, files)
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._watchdog.__enter__()
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        started = [each for child in self.children for each in child.descendants()]
        try:
            self._watcher.join()
            for child in reversed(self.children):
                signal_group(child.process.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            for child in reversed(self.children):
                _await_end(child, deadline)
        finally:
            # Also after a second Ctrl-C. All that a service started is killed: a flow run must not outlive its worker.
            for child in self.children:
                signal_group(child.process.pid, signal.SIGKILL)
                child.process.wait()
            kill(started)
            kill_marked(self._mark)
            self._watchdog.__exit__(kind, fault, trace)

    def start(self, services: Sequence[Service]) -> None:
        """Start services and wait until all are healthy. Raises PerpetuneError as `starting` does."""
        for _ in self.starting(services):
            pass

    def starting(self, services: Sequence[Service]) -> Iterator[Child]:
        """Start all services and yield each when it is healthy; reports what it waits for.

        Raises PerpetuneError if a port is in use, or a service ends or is not healthy in time.
        """
        for service in services:
            if service.port is not None:
                require_free(service.port, service.name)
        began = reported = time.monotonic()
        waiting = [self._start(service) for service in services]
        while waiting:
            for child in [child for child in waiting if child.healthy()]:
                waiting.remove(child)
                yield child
            now = time.monotonic()
            for child in waiting:
                _require_starting(child, now - began)
            if waiting and now - reported >= LOG_SECONDS:
                reported = now
                self._report(f"waiting for {', '.join(child.service.name for child in waiting)} ({now - began:.0f} s)")
            time.sleep(0.2 if waiting else 0)

    def _start(self, service: Service) -> Child:
        child = Child(service, self._logs / f"{service.name}.log", self._spawn(service))
        self.children.append(child)
        return child

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        with (self._logs / f"{service.name}.log").open("ab") as log:
            process = subprocess.Popen(
                service.command,
                cwd=service.folder or self._folder,
                env={**self._environment, self._mark: service.name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._kept,
            )
        self._watchdog.watch(process.pid)
        return process

    def _watch(self) -> None:
        due: dict[str, float] = {}
        while not self._stopping.wait(0.5):
            for child in list(self.children):
                name = child.service.name
                if child.alive():
                    continue
                if name not in due:
                    signal_group(child.process.pid, signal.SIGKILL)
                    kill_marked(self._mark, name)  # what it started ends with it
                    pause = min(2.0**child.restarts, MAX_BACKOFF)
                    due[name] = time.monotonic() + pause
                    self._report(
                        f"{name} ended with code {child.process.returncode}; "
                        f"starting it again in {pause:.0f} s (its log: {child.log})"
                    )
                elif time.monotonic() >= due[name]:
                    del due[name]
                    child.restarts += 1
                    child.process = self._spawn(child.service)


def _require_starting(child: Child, seconds: float) -> None:
    """Raises PerpetuneError if the service has ended or exceeded its time limit."""
    if child.restarts or not child.alive():
        raise PerpetuneError(
            f"{child.service.name} ended while starting; the end of its log:\n{_last_lines(child.log)}",
            do=f"see {child.log}",
        )
    if seconds > child.service.start_seconds:
        raise PerpetuneError(
            f"{child.service.name} did not answer within {child.service.start_seconds:.0f} s", do=f"see {child.log}"
        )


def answers(url: str) -> bool:
    try:
        return _client().get(url).status_code < 400
    except httpx.HTTPError:
        return False


@cache
def _client() -> httpx.Client:
    """A shared client, because creating one takes twenty times as long as a request."""
    return httpx.Client(timeout=2, follow_redirects=True, trust_env=False)  # of this machine: no proxy is asked


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(port: int, name: str) -> None:
    """Raises PerpetuneError if the port is in use, with the process that listens if it is visible, or not allowed."""
    if is_free(port):
        return
    if port < _PRIVILEGED and os.geteuid() != 0 and _listener(port) is None:
        raise PerpetuneError(
            f"port {port}, meant for {name}, is only for the superuser", do=f"choose one from 1024 with --{name}-port"
        )
    raise port_taken(port, name, _listener(port))


def port_taken(port: int, name: str, holder: str | None) -> PerpetuneError:
    return PerpetuneError(
        f"port {port}, meant for {name}, is in use" + (f" by {holder}" if holder else ""),
        do=f"stop that process, or choose another port with --{name}-port",
    )


def _listener(port: int) -> str | None:
    """The process that listens on the port, for an error message; None if not visible."""
    try:
        found = psutil.net_connections("tcp")
        pids = [each.pid for each in found if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,)]
        return f"process {pids[0]} ({' '.join(psutil.Process(pids[0]).cmdline())[:120]})" if pids and pids[0] else None
    except psutil.Error:  # it belongs to another user, or ended
        return None


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _await_end(child: Child, deadline: float) -> None:
    try:
        child.process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass


def _last_lines(log: Path, count: int = 8) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-count:])

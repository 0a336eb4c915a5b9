"""Following a run on a real Prefect server: every line arrives, also those that come after the run has ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from perpetune.errors import PerpetuneError
from perpetune.runtime import prefect_api
from perpetune.runtime.prefect_api import FlowRun, Prefect

pytestmark = pytest.mark.slow

# A run without log lines for longer than two polls, with its verdict at the end, as a watch run.
WATCH = """
import sys
import time
from prefect import flow, task
from prefect.runtime import flow_run

@task
def look():
    print("a task's last line")

@flow(log_prints=True)
def watch():
    sys.stdout.write(f"RUN {flow_run.id}\\n")
    sys.stdout.flush()
    time.sleep(3)
    for number in range(250):
        print(f"line {number}")
    look()
    print("keep: it is fine")

watch()
"""
KILLED = """
import sys
import time
from prefect import flow
from prefect.runtime import flow_run

@flow(log_prints=True)
def killed():
    sys.stdout.write(f"RUN {flow_run.id}\\n")
    sys.stdout.flush()
    time.sleep(600)

killed()
"""


@pytest.fixture
def server(prefect: str) -> Prefect:
    return Prefect(prefect)


def begun(code: str) -> tuple[subprocess.Popen[str], FlowRun]:
    """A flow in a separate process, and its run."""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("RUN "):
            return child, FlowRun(line.split()[1], "run", "RUNNING", "", "")
    raise AssertionError("it has not begun")


def test_the_last_line_of_a_flow_is_passed_on_once_and_in_order(server: Prefect) -> None:
    child, run = begun(WATCH)
    said: list[str] = []
    ended = server.follow(run, said.append, poll_seconds=0.2)
    child.communicate(timeout=120)
    assert ended.state == "COMPLETED"
    assert said[-1] == "keep: it is fine"
    assert [line for line in said if line.startswith("line ")] == [f"line {number}" for number in range(250)]
    assert said.count("keep: it is fine") == 1
    assert not [line for line in said if line.startswith("Finished in state")]
    again: list[str] = []
    began = time.monotonic()
    assert server.follow(run, again.append).final
    assert again == said, "one that has ended is told from its beginning"
    assert time.monotonic() - began < prefect_api.LOG_TIMEOUT, "its last line has come: nothing to wait for"


def test_a_run_that_was_killed_is_not_waited_for_for_ever(server: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "LOG_TIMEOUT", 1.0)
    child, run = begun(KILLED)
    child.kill()
    child.wait()
    body = {"state": {"type": "CRASHED", "message": "it was killed"}, "force": True}
    httpx.post(f"{server.url}/flow_runs/{run.id}/set_state", json=body, timeout=30).raise_for_status()
    ended = server.follow(run, print, poll_seconds=0.2)
    assert (ended.state, ended.message) == ("CRASHED", "it was killed")


@pytest.mark.integration
def test_a_deployment_with_a_renamed_flow_says_what_to_do(server: Prefect) -> None:
    flow = httpx.post(f"{server.url}/flows/", json={"name": "refresh"}).json()
    old = {"name": "registered-before", "flow_id": flow["id"], "entrypoint": "flows.refresh.refresh"}
    httpx.post(f"{server.url}/deployments/", json=old).raise_for_status()
    with pytest.raises(PerpetuneError, match=r"perpetune\.flows\.refresh\.refresh now") as refused:
        server.start("refresh/registered-before", {})
    assert "python -m perpetune.flows deploy" in str(refused.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "_client", lambda trust_env: httpx.Client(timeout=0.3))
    monkeypatch.setattr(prefect_api, "RETRY_SECONDS", 3.0)


@pytest.mark.usefixtures("impatient")
def test_requests_are_retried_while_the_server_is_busy(
    json_server: Callable[[Callable[[Any], tuple[int, object]]], str],
) -> None:
    asked: list[str] = []

    def reply(events: Any) -> tuple[int, object]:
        asked.append(events[0]["id"])
        time.sleep(1 if len(asked) < 3 else 0)
        return (503 if len(asked) == 3 else 200), {}

    Prefect(json_server(reply)).emit("perpetune.tested", "any", {})
    assert len(asked) == 4
    assert len(set(asked)) == 1, "it happens once, however often it is asked"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("status", "seconds", "told"), [(200, 1, "does not answer"), (503, 0, "Prefect refused POST")])
def test_a_server_that_does_not_answer_is_an_error(
    status: int, seconds: float, told: str, json_server: Callable[[Callable[[Any], tuple[int, object]]], str]
) -> None:
    def reply(_: Any) -> tuple[int, object]:
        time.sleep(seconds)
        return status, {}

    with pytest.raises(PerpetuneError, match=told):
        Prefect(json_server(reply)).emit("perpetune.tested", "any", {})


def test_the_error_of_a_failed_run_says_why_and_what_to_do() -> None:
    def ended(state: str, message: str) -> FlowRun:
        return FlowRun("1", "watch (manual)", state, message, "http://prefect/1")

    assert ended("COMPLETED", "").fault() is None
    beside = str(ended("CANCELLED", "Deployment concurrency limit reached.").fault())
    assert "another run of the deployment was running" in beside and "start it again" in beside
    assert "ended as cancelled: somebody stopped it" in str(ended("CANCELLED", "somebody stopped it").fault())
    assert "ended as failed: no disk" in str(ended("FAILED", "no disk").fault())

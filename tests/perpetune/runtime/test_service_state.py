"""Which services are up, asked of servers that answer, refuse, hang, or are not there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from local_servers import QuietHandler, serve_until_exit
from pydantic import SecretStr

from perpetune.params import load_params
from perpetune.runtime.service_state import SECONDS, ServiceState, service_states
from perpetune.settings import Settings
from perpetune.workspace import Workspace

ROOT = Path(__file__).parents[3]
Replies = dict[str, tuple[int, object]]


@pytest.fixture
def serve() -> Iterator[Callable[[Replies], str]]:
    """A server with these replies by path; one of status 0 comes after the time that a client waits."""
    with ExitStack() as stack:

        def begin(replies: Replies) -> str:
            class Handler(QuietHandler):
                def do_GET(self) -> None:
                    status, body = replies.get(self.path, (404, {}))
                    if status == 0:
                        time.sleep(2 * SECONDS)
                        return
                    content = json.dumps(body).encode()
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            return serve_until_exit(stack, Handler)

        yield begin


def states(folder: Path, **addresses: object) -> dict[str, ServiceState]:
    settings = Settings().model_copy(
        update={**dict.fromkeys(("gateway_url", "mlflow_tracking_uri", "prefect_api_url", "vllm_url")), **addresses}
    )
    workspace = Workspace(folder, load_params(ROOT / "params.yaml"), settings)
    if "vllm_url" in addresses:
        params = workspace.params
        workspace = replace(
            workspace, params=params.model_copy(update={"serve": params.serve.model_copy(update={"engine": "vllm"})})
        )
    return {each.name: each for each in service_states(workspace)}


def test_all_are_up(serve: Callable[[Replies], str], tmp_path: Path) -> None:
    gateway = serve({"/readyz": (200, {"task": "reviews", "serving": "3"})})
    mlflow = serve({"/health": (200, "OK")})
    prefect = serve({"/api/health": (200, True), "/api/deployments/name/watch/reviews": (200, {"status": "READY"})})
    found = states(
        tmp_path, gateway_url=gateway, mlflow_tracking_uri=mlflow, prefect_api_url=f"{prefect}/api", vllm_url=mlflow
    )
    assert {name: state.up for name, state in found.items()} == dict.fromkeys(
        ("gateway", "engine", "MLflow", "Prefect", "worker"), True
    )
    assert found["gateway"].serving == "3"


def test_nothing_runs(tmp_path: Path) -> None:
    found = states(tmp_path)
    assert not any(state.up for state in found.values())
    assert {state.do for state in found.values()} == {"`perpetune up`"}


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (503, {"task": "reviews", "serving": None, "release": "no champion"}, "has no version: no champion"),
        (200, {"task": "another", "serving": "1"}, "serves another"),
        (200, {"hello": "world"}, "another program answers there"),
    ],
)
def test_a_gateway_that_serves_nothing_of_ours_is_down(
    serve: Callable[[Replies], str], tmp_path: Path, status: int, body: object, what: str
) -> None:
    found = states(tmp_path, gateway_url=serve({"/readyz": (status, body)}))
    assert (found["gateway"].up, found["gateway"].what, found["engine"].up) == (False, what, False)


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (404, {}, "nothing is scheduled: it has never run"),
        (200, {"status": "NOT_READY"}, "does not ask Prefect for runs"),
        (200, {"status": "READY", "paused": True}, "its schedules are paused"),
    ],
)
def test_a_worker_that_starts_no_runs_is_down(
    serve: Callable[[Replies], str], tmp_path: Path, status: int, body: object, what: str
) -> None:
    prefect = serve({"/api/health": (200, True), "/api/deployments/name/watch/reviews": (status, body)})
    found = states(tmp_path, prefect_api_url=f"{prefect}/api")
    assert (found["Prefect"].up, found["worker"].up, found["worker"].what) == (True, False, what)


def test_credentials_that_are_refused_are_said(serve: Callable[[Replies], str], tmp_path: Path) -> None:
    prefect = serve({"/api/health": (401, {})})
    found = states(tmp_path, prefect_api_url=f"{prefect}/api", prefect_api_auth_string=SecretStr("a:b"))
    assert (found["Prefect"].up, found["Prefect"].what) == (False, "refuses our credentials (401)")
    assert found["worker"].what == "not known without Prefect"


@pytest.mark.slow
def test_servers_that_hang_are_asked_at_the_same_time(serve: Callable[[Replies], str], tmp_path: Path) -> None:
    hung = serve(dict.fromkeys(("/readyz", "/health", "/api/health"), (0, None)))
    began = time.monotonic()
    found = states(tmp_path, gateway_url=hung, mlflow_tracking_uri=hung, prefect_api_url=f"{hung}/api", vllm_url=hung)
    assert time.monotonic() - began < 2 * SECONDS
    assert {state.what for state in found.values()} == {"does not answer", "not known without Prefect"}

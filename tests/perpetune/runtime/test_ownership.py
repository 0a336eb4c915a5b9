"""Whose a service is, asked over HTTP: the right workspace, another one, a server of another kind, and none."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from local_servers import QuietHandler, serve_until_exit

from perpetune.errors import PerpetuneError
from perpetune.runtime.addresses import WORKSPACE_ID, Addresses, workspace_id
from perpetune.runtime.ownership import _SECONDS, HEADER, TAG, require_not_foreign, require_own
from perpetune.runtime.processes.supervisor import free_ports
from perpetune.settings import Settings

VARIABLES = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI", "gateway": "PERPETUNE_GATEWAY_URL"}
Serve = Callable[[str, str | None], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a service that says whose it is in the way of its kind; its address."""
    with ExitStack() as stack:

        def begin(kind: str, owner: str | None) -> str:
            content = {
                "mlflow": {"experiment": {"tags": [{"key": TAG, "value": owner}] if owner else []}},
                "gateway": {"ready": True, "workspace": owner},
                "prefect": True,
                "list": [1, 2],
            }.get(kind)

            class Handler(QuietHandler):
                def do_GET(self) -> None:
                    body = b"<html>" if content is None else json.dumps(content).encode()
                    self.send_response(404 if content is None else 200)
                    if kind == "prefect" and owner:
                        self.send_header(HEADER, owner)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            return serve_until_exit(stack, Handler)

        yield begin


def saved(name: str, url: str, started: bool = True) -> Addresses:
    return Addresses({VARIABLES[name]: url, WORKSPACE_ID: "mine"}, frozenset([name] if started else []))


@pytest.mark.parametrize("name", VARIABLES)
def test_only_the_services_of_this_workspace_are_used(name: str, serve: Serve) -> None:
    require_own(saved(name, serve(name, "mine")))
    with pytest.raises(PerpetuneError, match=f"the {name} of this workspace has ended, and that of another workspace"):
        require_own(saved(name, serve(name, "theirs")))
    for kind in ("web page", "list", name):
        with pytest.raises(PerpetuneError, match="a server of another kind answers at its address"):
            require_own(saved(name, serve(kind, None)))


@pytest.mark.parametrize("name", VARIABLES)
def test_a_service_elsewhere_is_anybodys_and_a_dead_one_is_reported_by_its_user(name: str, serve: Serve) -> None:
    require_own(saved(name, serve(name, "theirs"), started=False))
    require_own(saved(name, f"http://127.0.0.1:{free_ports(1)[0]}"))


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_variables_of_another_workspaces_services_are_refused(
    name: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (*VARIABLES.values(), WORKSPACE_ID):
        monkeypatch.delenv(each, raising=False)
    for owner in (None, workspace_id(tmp_path)):
        monkeypatch.setenv(VARIABLES[name], serve(name, owner))
        require_not_foreign(Settings(), tmp_path)
    monkeypatch.setenv(VARIABLES[name], serve(name, "theirs"))
    with pytest.raises(PerpetuneError, match="belongs to another workspace") as fault:
        require_not_foreign(Settings(), tmp_path)
    assert "PERPETUNE_WORKSPACE_ID=theirs" in str(fault.value)
    monkeypatch.setenv(WORKSPACE_ID, "theirs")
    require_not_foreign(Settings(), tmp_path)


def test_a_copy_is_another_workspace_and_a_link_is_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert workspace_id(tmp_path / "one") == workspace_id(tmp_path / "link") != workspace_id(tmp_path / "two")


def test_services_that_hang_are_asked_at_the_same_time() -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in VARIABLES]
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in waiting]
        addresses = {**dict(zip(VARIABLES.values(), urls, strict=True)), WORKSPACE_ID: "mine"}
        began = time.monotonic()
        require_own(Addresses(addresses, frozenset(VARIABLES)))
        require_not_foreign(Settings(mlflow_tracking_uri=urls[0], prefect_api_url=urls[1]), Path())
        assert time.monotonic() - began < 2 * _SECONDS + 1.5, "not one after the other"

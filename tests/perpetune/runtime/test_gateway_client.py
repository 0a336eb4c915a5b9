"""The client of the release API at a real gateway: its own, another task's, another workspace's, and no gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perpetune.errors import PerpetuneError
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.release_routes import CheckRequest, Identity
from perpetune.params import Params, load_params
from perpetune.runtime.addresses import LOCK_FILE, WORKSPACE_ID, save_addresses, workspace_id
from perpetune.runtime.gateway_client import GatewayClient, NoGateway, gateway_of
from perpetune.runtime.processes.file_locks import acquire
from perpetune.settings import Settings
from perpetune.workspace import Workspace

PARAMS: Params = load_params(Path(__file__).parents[3] / "params.yaml")
Start = Callable[..., Any]  # a Gateway of helpers/gateways.py


def test_another_tasks_gateway_is_neither_reloaded_nor_rolled_back(start: Start) -> None:
    gateway = start()
    gateway.source.promote("2")
    client = GatewayClient(gateway.url, "reviews", "any workspace: the gateway was given none")
    assert client.check().serving == "2"
    for call in (replace(client, task="tickets").check, lambda: replace(client, task="tickets").roll_back("it swears")):
        with pytest.raises(PerpetuneError, match="serves the task 'reviews', not 'tickets': nothing was changed") as no:
            call()
        assert "PERPETUNE_GATEWAY_URL" in str(no.value)
    assert client.check().serving == "2", "nothing was changed"
    assert client.roll_back("it swears").restored == "1"


def test_a_rollback_without_a_task_is_refused_and_a_check_is_not(start: Start) -> None:
    gateway = start()
    for body in ({}, None, {"reason": "x"}, {"task": None}):
        assert gateway.post("/v1/release/rollback", body).status_code == 400
    for body in ({}, None, {"task": "reviews"}):
        assert gateway.post("/v1/release/check", body).status_code == 200
    assert gateway.post("/v1/release/check", {"tsak": "tickets"}).status_code == 400


@pytest.mark.parametrize(
    ("ours", "theirs", "code"),
    [("a", "a", None), ("a", None, None), (None, "a", None), ("a", "b", "other_workspace")],
)
def test_a_gateway_that_has_an_id_refuses_another(ours: str | None, theirs: str | None, code: str | None) -> None:
    identity, request = Identity("reviews", ours), CheckRequest(task="reviews", workspace=theirs)
    if code is None:
        identity.require(request)
        return
    with pytest.raises(ApiError) as fault:
        identity.require(request)
    assert (fault.value.status, fault.value.code) == (409, code)


@pytest.mark.parametrize("body", ["text", [1], 5])
def test_a_server_of_another_kind_is_an_error_and_no_traceback(
    body: object, json_server: Callable[[Callable[[Any], tuple[int, object]]], str]
) -> None:
    client = GatewayClient(json_server(lambda _: (200, body)), "reviews")
    with pytest.raises(PerpetuneError, match="this is no gateway"):
        client.roll_back("it swears")


def test_what_is_sent_names_the_task_and_the_workspace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    json_server: Callable[[Callable[[Any], tuple[int, object]]], str],
) -> None:
    for name in ("PERPETUNE_GATEWAY_URL", "PERPETUNE_HOME", WORKSPACE_ID):
        monkeypatch.delenv(name, raising=False)
    sent: list[dict[str, object]] = []

    def reply(body: dict[str, object]) -> tuple[int, object]:
        sent.append(body)
        return 200, {"serving": "1"}

    url, task = json_server(reply), PARAMS.task.name
    home = tmp_path / ".perpetune"
    with acquire(home / LOCK_FILE) or pytest.fail("it is held"):
        save_addresses(home, {"PERPETUNE_GATEWAY_URL": url, WORKSPACE_ID: "saved"}, ["gateway"])
        gateway_of(Workspace(tmp_path, PARAMS, Settings())).check()
    with pytest.raises(NoGateway):
        gateway_of(Workspace(tmp_path, PARAMS, Settings()))
    for settings in (Settings(gateway_url=url), Settings(gateway_url=url, workspace_id="named")):
        gateway_of(Workspace(tmp_path, PARAMS, settings)).check()
    assert sent == [{"task": task, "workspace": who} for who in ("saved", workspace_id(home), "named")]
    elsewhere = gateway_of(Workspace(tmp_path, PARAMS, Settings(gateway_url="http://gateway:8000")))
    assert elsewhere.workspace is None, "it was named on purpose, and serves many hosts"

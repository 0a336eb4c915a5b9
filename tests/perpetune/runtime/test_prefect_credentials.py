"""What proves who we are to Prefect: the same headers as those of Prefect's own client, with the same settings."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from perpetune.errors import PerpetuneError
from perpetune.runtime.prefect_api import Prefect, ui_url
from perpetune.settings import Settings

NAMES = (
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_CLIENT_CUSTOM_HEADERS",
)
CLIENT = """
import json
from prefect import get_client
with get_client(sync_client=True) as client:
    found = client._client.headers
    print(json.dumps({name: found[name] for name in ("authorization", "x-team") if name in found}))
"""
CLOUD = "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-2"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*NAMES, "PREFECT_UI_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def seen() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that keeps the headers of requests, and wants a password."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            received.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200 if "authorization" in self.headers else 401)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/", received
        server.shutdown()
        thread.join(timeout=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"PREFECT_API_KEY": "pnu_key"},
        {"PREFECT_API_AUTH_STRING": "admin:pass:wörd"},
        {"PREFECT_API_KEY": "pnu_key", "PREFECT_API_AUTH_STRING": "admin:pass"},
        {"PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Team": "models"}'},
    ],
)
def test_the_headers_are_those_of_prefects_own_client(
    given: dict[str, str], environment: pytest.MonkeyPatch, seen: tuple[str, list[dict[str, str]]]
) -> None:
    url, received = seen
    for name, value in {"PREFECT_API_URL": "http://127.0.0.1:9/api", **given}.items():
        environment.setenv(name, value)
    theirs = json.loads(subprocess.run([sys.executable, "-c", CLIENT], capture_output=True, check=True).stdout)
    assert {name.lower(): value for name, value in Settings().prefect_headers.items()} == theirs
    if "authorization" in theirs:
        Prefect(url).emit("perpetune.tested", "any", {})
        assert theirs.items() <= received[0].items()
    else:
        with pytest.raises(PerpetuneError, match=r"refused POST /events \(401\)") as fault:
            Prefect(url).emit("perpetune.tested", "any", {})
        assert "PREFECT_API_KEY" in str(fault.value)


def test_the_password_of_the_server_does_for_its_clients(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:theirs")
    assert Settings().prefect_user_and_password == "admin:theirs"
    environment.setenv("PREFECT_API_AUTH_STRING", "admin:ours")
    assert Settings().prefect_user_and_password == "admin:ours"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '"a"'])
def test_headers_that_are_none_are_refused(text: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PREFECT_CLIENT_CUSTOM_HEADERS", text)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("api", "page"),
    [
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200"),
        ("https://prefect.example/prefect/api/", "https://prefect.example/prefect"),
        (CLOUD, "https://app.prefect.cloud/account/a-1/workspace/w-2"),
        (f"{CLOUD}/", "https://app.prefect.cloud/account/a-1/workspace/w-2"),
    ],
)
def test_where_people_open_the_pages(api: str, page: str, environment: pytest.MonkeyPatch) -> None:
    assert ui_url(api) == page
    environment.setenv("PREFECT_UI_URL", "https://pages.example/")
    assert ui_url(api) == "https://pages.example"

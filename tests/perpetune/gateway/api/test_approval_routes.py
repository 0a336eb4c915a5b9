from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import sqlalchemy
from gateways import PARAMS, running_app

from perpetune.audit.store import entries
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.approval_routes import Approvals, Waiting
from perpetune.gateway.app import create_app
from perpetune.model.release import Release
from perpetune.params import ServeParams
from perpetune.prediction_log.api_keys import add_key
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

YES = {"approve": True, "comment": "read 50 answers"}
HEADER = "X-Auth-Request-Email"

Begin = Callable[..., str]


@pytest.fixture
def answers() -> list[tuple[str, bool, str, str]]:
    return []


@pytest.fixture
def begin(
    release: Callable[..., Release], log: sqlalchemy.Engine, answers: list[tuple[str, bool, str, str]]
) -> Iterator[Begin]:
    """Start a gateway, in front of which version 4 waits for approval; its address."""

    def answer(version: str, approve: bool, by: str, comment: str) -> str:
        if any(each[0] == version for each in answers):
            raise PerpetuneError("Prefect did not resume it")
        answers.append((version, approve, by, comment))
        return "run-1"

    approvals = Approvals(lambda: [Waiting(version="4", until=None, flow_run="run-1")], answer)
    with ExitStack() as stack:

        def start(params: ServeParams = PARAMS) -> str:
            source = FakeSource([release("1")], champion="1")
            app = create_app(
                "reviews",
                engine=FakeEngine(),
                source=source,
                log=log,
                params=params,
                max_new_tokens=8,
                approvals=approvals,
            )
            return stack.enter_context(running_app(app, params))

        yield start


def post(url: str, key: str | None = None, version: str = "4", body: object = YES, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["authorization"] = f"Bearer {key}"
    return httpx.post(f"{url}/v1/approvals/{version}", json=body, headers=sent, timeout=10)


def test_a_key_approves_under_its_name_whatever_the_headers_say(
    begin: Begin, log: sqlalchemy.Engine, answers: list[tuple[str, bool, str, str]]
) -> None:
    key, asker = add_key(log, "oncall", ["admin"]), add_key(log, "shop", ["ask"])
    url = begin()
    found = httpx.get(f"{url}/v1/approvals", headers={"authorization": f"Bearer {key}"}).json()
    assert [each["version"] for each in found] == ["4"]
    assert (post(url).status_code, post(url, asker).status_code) == (401, 403)
    assert post(url, key, "5").json()["error"]["code"] == "not_waiting"
    assert post(url, key, body=YES | {"who": "Ada"}).status_code == 400
    assert answers == [] and not list(entries(log))
    assert post(url, key, X_Auth_Request_Email="ada@example.org").json() == {
        "version": "4",
        "by": "key oncall",
        "flow_run": "run-1",
    }
    assert answers == [("4", True, "key oncall", "read 50 answers")]
    [entry] = entries(log)
    assert (entry.event.actor, entry.event.subject) == ("key oncall", "reviews version 4")
    assert post(url, key).status_code == 409


@pytest.mark.parametrize("client", [None, "192.0.2.7"])
def test_a_trusted_proxy_names_the_user(
    begin: Begin, log: sqlalchemy.Engine, answers: list[tuple[str, bool, str, str]], client: str | None
) -> None:
    """Whatever it says of the client's address, which is not that of the connection."""
    key = add_key(log, "proxy", ["admin"])
    url = begin(trusting("127.0.0.1"))
    more = {"X-Forwarded-For": client} if client else {}
    body = YES | {"approve": False}
    assert post(url, key, body=body, **{HEADER: "ada@example.org"}, **more).json()["by"] == "user ada@example.org"
    assert answers == [("4", False, "user ada@example.org", "read 50 answers")]
    assert [each.event.actor for each in entries(log)] == ["user ada@example.org"]


def test_any_other_address_names_nobody(begin: Begin, log: sqlalchemy.Engine) -> None:
    """Not even one that pretends to be the proxy's."""
    key = add_key(log, "mallory", ["admin"])
    url = begin(trusting("10.0.0.5"))
    found = post(url, key, **{HEADER: "ada@example.org"}, X_Forwarded_For="10.0.0.5")
    assert found.json()["by"] == "key mallory"


@pytest.mark.parametrize("values", [[], [""], ["ada@example.org", "eve@example.org"], ["a" * 255]])
def test_without_one_identity_nobody_approves(
    begin: Begin, answers: list[tuple[str, bool, str, str]], values: list[str]
) -> None:
    url = begin(trusting("127.0.0.1"))
    headers = [(HEADER, value) for value in values]
    found = httpx.post(f"{url}/v1/approvals/4", json=YES, headers=headers, timeout=10)
    assert (found.status_code, found.json()["error"]["code"]) == (403, "not_identified")
    assert answers == []


def test_without_an_entry_in_the_audit_log_nothing_is_approved(
    begin: Begin, log: sqlalchemy.Engine, answers: list[tuple[str, bool, str, str]]
) -> None:
    key, url = add_key(log, "oncall", ["admin"]), begin()
    with log.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO elsewhere")
    assert (post(url, key).status_code, answers) == (503, [])


def test_no_page_in_a_browser_approves(begin: Begin, log: sqlalchemy.Engine) -> None:
    key = add_key(log, "oncall", ["admin"])
    assert post(begin(), key, Origin="https://evil.example").status_code == 403


def test_a_header_without_proxies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="identity_header needs trusted_proxies"):
        ServeParams(identity_header=HEADER)


def trusting(proxy: str) -> ServeParams:
    return ServeParams.model_validate({**PARAMS.model_dump(), "trusted_proxies": (proxy,), "identity_header": HEADER})

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy
from openai import AuthenticationError, NotFoundError, OpenAI, PermissionDeniedError
from starlette.responses import PlainTextResponse
from starlette.types import Message
from waiting import eventually

from perpetune.gateway.middleware.access import AccessMiddleware, role_for
from perpetune.gateway.middleware.rate_limit import RateLimit
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.params import ServeParams
from perpetune.prediction_log.api_keys import Keyring, KeyringCache, Role, add_key, revoke_key

Start = Callable[..., Any]

BODY = {"model": "reviews", "messages": [{"role": "user", "content": "hello"}]}


def send(url: str, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, url + path, headers=headers, timeout=10, **more)


def error_of(response: httpx.Response, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    error: dict[str, str] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def through(guard: AccessMiddleware, path: str, host: str | None = None) -> list[Message]:
    """What the guard sends to one request from this address."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: dict[str, Any] = {
        "type": "http",
        "path": path,
        "method": "GET",
        "headers": [],
        "client": (host, 1) if host else None,
    }
    asyncio.run(guard(scope, receive, send))
    return sent


ROUTES: list[tuple[str, str, Role]] = [
    ("POST", "/v1/chat/completions", "ask"),
    ("GET", "/v1/models", "ask"),
    ("GET", "/v1/models/reviews", "ask"),
    ("POST", "/v1/feedback", "feedback"),
    ("POST", "/v1/release/check", "admin"),
    ("POST", "/v1/embeddings", "ask"),
]


@pytest.mark.parametrize(("path", "role"), [(path, role) for _, path, role in ROUTES])
def test_the_role_of_a_path(path: str, role: Role) -> None:
    assert role_for(path) == role
    assert role_for("/v1/anything") == "admin", "a path that is added and named nowhere needs the most"


@pytest.mark.parametrize("path", ["/v1/anything", "/v1/", "/v1", "/v1/files/a", "/v1/chat/completion"])
def test_an_unknown_path_is_404_for_every_key(start: Start, log: sqlalchemy.Engine, path: str) -> None:
    keys = [add_key(log, role, [role]) for role in ("ask", "feedback", "admin")]
    gateway = start()
    for key in keys:
        for method in ("GET", "POST"):
            assert error_of(send(gateway.url, method, path, key), 404)["code"] == "unknown_url"
    assert send(gateway.url, "GET", path).status_code == 401


def test_embeddings_are_said_not_to_be_here(start: Start, log: sqlalchemy.Engine) -> None:
    ask = add_key(log, "shop", ["ask"])
    with OpenAI(base_url=f"{start().url}/v1", api_key=ask, max_retries=0) as client:
        with pytest.raises(NotFoundError, match="computes no embeddings") as caught:
            client.embeddings.create(model="reviews", input="hello")
    assert caught.value.code == "unsupported_endpoint"


def test_every_role_opens_its_own_routes(start: Start, log: sqlalchemy.Engine) -> None:
    keys = {role: add_key(log, role, [role]) for role in ("ask", "feedback", "admin")}
    gateway = start()
    for method, path, needed in ROUTES:
        for role, key in keys.items():
            answer = send(gateway.url, method, path, key, json=BODY)
            if role in (needed, "admin"):
                assert answer.status_code not in (401, 403), (role, path, answer.text)
            else:
                assert error_of(answer, 403)["code"] == "insufficient_permissions"
        assert error_of(send(gateway.url, method, path, json=BODY), 401)["code"] == "invalid_api_key"
    for path in ("/healthz", "/readyz", "/metrics"):
        assert send(gateway.url, "GET", path).status_code == 200
    text = send(gateway.url, "GET", "/metrics").text
    assert f'perpetune_unauthorized_total{{code="invalid_api_key"}} {len(ROUTES)}.0' in text
    assert 'perpetune_http_requests_total{path="/v1/feedback",status="401"} 1.0' in text


def test_the_official_client_understands_both_refusals(start: Start, log: sqlalchemy.Engine) -> None:
    feedback = add_key(log, "judge", ["feedback"])
    ask = add_key(log, "shop", ["ask"])
    url = f"{start().url}/v1"
    with pytest.raises(AuthenticationError) as caught:
        OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
    with pytest.raises(PermissionDeniedError) as refused:
        OpenAI(base_url=url, api_key=feedback, max_retries=0).models.list()
    assert refused.value.code == "insufficient_permissions"
    assert OpenAI(base_url=url, api_key=ask).models.list().data[0].id == "reviews"


def test_the_gateway_is_open_until_a_first_key_and_closes_while_it_runs(start: Start, log: sqlalchemy.Engine) -> None:
    gateway = start()
    assert gateway.ask("hello").status_code == 200
    key = add_key(log, "shop", ["ask"])
    eventually(lambda: gateway.ask("hello").status_code == 401)
    assert send(gateway.url, "POST", "/v1/chat/completions", key, json=BODY).status_code == 200
    revoke_key(log, "shop")
    eventually(lambda: send(gateway.url, "POST", "/v1/chat/completions", key, json=BODY).status_code == 401)
    assert gateway.ask("hello").status_code == 401


@pytest.mark.parametrize("header", ["KEY", "Basic KEY", "Bearer", "Bearer x KEY", "bearer: KEY"])
def test_headers_that_are_no_key(start: Start, log: sqlalchemy.Engine, header: str) -> None:
    key = add_key(log, "shop", ["ask"])
    gateway = start()
    for value, status in ((header.replace("KEY", key), 401), (f"bearer {key}", 200)):
        answer = httpx.get(f"{gateway.url}/v1/models", headers={"authorization": value})
        assert answer.status_code == status
    twice = httpx.get(f"{gateway.url}/v1/models", headers=[("authorization", f"Bearer {key}")] * 2)
    assert twice.status_code == 401


def test_a_key_shows_nowhere(
    start: Start, log: sqlalchemy.Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    valid, other = add_key(log, "shop", ["ask"]), "ppt_" + "a-wrong-key" * 4
    gateway = start()
    with caplog.at_level(logging.DEBUG):
        answers = [send(gateway.url, "POST", "/v1/chat/completions", key, json=BODY) for key in (valid, other)]
        answers += [send(gateway.url, "POST", "/v1/feedback", key, json={"x": 1}) for key in (valid, other)]
        answers.append(send(gateway.url, "POST", "/v1/chat/completions", valid, content=b"{broken"))
        answers.append(send(gateway.url, "GET", "/metrics"))
    assert [answer.status_code for answer in answers] == [200, 401, 403, 401, 400, 200]
    shown = capfd.readouterr()
    everything = "".join([*(answer.text for answer in answers), caplog.text, shown.out, shown.err])
    with log.connect() as connection:
        everything += str(connection.exec_driver_sql("SELECT * FROM predictions").all())
    for key in (valid, other):
        assert key not in everything


def test_a_key_of_another_task_is_refused_whatever_its_role(start: Start, log: sqlalchemy.Engine) -> None:
    mine = add_key(log, "mine", ["admin"], ["reviews", "intents"])
    other = add_key(log, "other", ["admin"], ["intents", "tickets"])
    gateway = start()
    for method, path, _ in ROUTES:
        error = error_of(send(gateway.url, method, path, other), 403)
        assert error["message"] == "This API key is for intents and tickets only, not for reviews."
        assert error["code"] == "key_of_other_task"
        assert send(gateway.url, method, path, mine).status_code != 403
    assert send(gateway.url, "GET", "/v1/nothing", other).status_code == 404
    assert 'perpetune_unauthorized_total{code="key_of_other_task"} 6.0' in gateway.get("/metrics").text


def test_no_key_that_can_be_read_is_a_closed_gateway() -> None:
    """As at a start without the database."""
    log = sqlalchemy.create_engine("sqlite://")
    holder = KeyringCache(log)
    guard = AccessMiddleware(PlainTextResponse("fine"), holder, None, Metrics())
    sent = through(guard, "/v1/models")
    assert sent[0]["status"] == 503
    assert b"keys_unavailable" in sent[1]["body"]


def test_the_body_of_a_stranger_is_not_read(start: Start, log: sqlalchemy.Engine) -> None:
    add_key(log, "shop", ["ask"])
    gateway = start()
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /v1/feedback HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


def limited(params: ServeParams, per_minute: int) -> ServeParams:
    return params.model_copy(update={"requests_per_minute": per_minute})


def test_beyond_the_limit_a_key_waits_and_another_does_not(
    start: Start, log: sqlalchemy.Engine, params: ServeParams
) -> None:
    one, two, boss = add_key(log, "one", ["ask"]), add_key(log, "two", ["ask"]), add_key(log, "boss", ["admin"])
    gateway = start(params=limited(params, 20))
    statuses = [send(gateway.url, "GET", "/v1/models", one).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = send(gateway.url, "GET", "/v1/models", one)
    assert error_of(refused, 429)["code"] == "rate_limit_exceeded"
    assert error_of(refused, 429)["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert send(gateway.url, "GET", "/v1/models", two).status_code == 200
    assert [send(gateway.url, "POST", "/v1/release/check", boss).status_code for _ in range(5)] == [200] * 5
    assert "perpetune_rate_limited_total 2.0" in gateway.get("/metrics").text


def test_without_keys_the_limit_is_of_an_address(start: Start, params: ServeParams) -> None:
    gateway = start(params=limited(params, 1))
    assert gateway.ask("hello").status_code == 200
    assert error_of(gateway.ask("hello"), 429)["code"] == "rate_limit_exceeded"
    assert gateway.get("/healthz").status_code == 200


def test_a_client_names_no_other_address(start: Start, params: ServeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    gateway = start(params=limited(params, 1))
    assert gateway.ask("hello").status_code == 200
    for name in ("x-forwarded-for", "forwarded", "x-real-ip"):
        assert ask_for(gateway, name, "192.0.2.7").status_code == 429


@pytest.mark.parametrize(
    ("proxies", "environment"),
    [(("127.0.0.1",), ""), (("10.0.0.0/8", "127.0.0.0/8"), "192.0.2.200"), ((), "10.0.0.1,127.0.0.1")],
)
def test_a_proxy_that_is_named_speaks_for_its_clients(
    start: Start,
    params: ServeParams,
    proxies: tuple[str, ...],
    environment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", environment)
    known = ServeParams.model_validate({**limited(params, 1).model_dump(), "trusted_proxies": proxies})
    gateway = start(params=known)
    assert [ask_for(gateway, "x-forwarded-for", f"192.0.2.{one}").status_code for one in (1, 2, 1)] == [200, 200, 429]
    # What the client wrote itself stands before the address that the proxy appended.
    assert ask_for(gateway, "x-forwarded-for", "198.51.100.9, 192.0.2.2").status_code == 429
    assert ask_for(gateway, "x-forwarded-for", "192.0.2.3, 127.0.0.1").status_code == 200


@pytest.mark.parametrize("proxy", ["*", "nginx", "10.0.0.0/99", ""])
def test_a_proxy_is_an_address_or_a_network(proxy: str) -> None:
    with pytest.raises(ValueError, match=r"no IP address or network like 10\.0\.0\.0/8"):
        ServeParams(trusted_proxies=(proxy,))


def ask_for(gateway: Any, header: str, client: str) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=BODY, headers={header: client}, timeout=10)


def test_wrong_keys_wait_and_the_right_one_does_not(start: Start, log: sqlalchemy.Engine, params: ServeParams) -> None:
    key = add_key(log, "shop", ["ask"])
    gateway = start(params=params.model_copy(update={"wrong_keys_per_minute": 30}))
    wrong = [send(gateway.url, "GET", "/v1/models", f"ppt_{number}") for number in range(6)]
    assert [answer.status_code for answer in wrong] == [401, 401, 401, 429, 429, 429]
    assert error_of(wrong[-1], 429)["code"] == "rate_limit_exceeded"
    assert int(wrong[-1].headers["retry-after"]) >= 1
    assert send(gateway.url, "GET", "/v1/models", key).status_code == 200
    assert send(gateway.url, "GET", "/v1/models").status_code == 401  # no key is no guess
    assert "perpetune_rate_limited_total 3.0" in gateway.get("/metrics").text


def test_addresses_of_one_ipv6_network_share_a_bucket() -> None:
    holder = KeyringCache(sqlalchemy.create_engine("sqlite://"))
    holder.keyring = Keyring(())
    guard = AccessMiddleware(PlainTextResponse("fine"), holder, RateLimit(1), Metrics())
    hosts = ["2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1", "10.0.0.1", "10.0.0.2", "a socket", None]
    assert [through(guard, "/v1/models", host)[0]["status"] for host in hosts] == [200, 429, 200, 200, 200, 200, 200]


ORIGIN = {"origin": "https://app.example.com"}
PREFLIGHT = {
    **ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


def test_browsers_are_let_in_from_the_origins_named(start: Start, log: sqlalchemy.Engine, params: ServeParams) -> None:
    key = add_key(log, "page", ["ask"])
    gateway = start(params=params.model_copy(update={"cors_origins": ("https://app.example.com",)}))
    url = f"{gateway.url}/v1/chat/completions"
    preflight = httpx.options(url, headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    asked = httpx.post(url, json=BODY, headers={**ORIGIN, "authorization": f"Bearer {key}"}, timeout=10)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN["origin"]
    refused = httpx.post(url, json=BODY, headers=ORIGIN, timeout=10)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN["origin"]
    stranger = {**PREFLIGHT, "origin": "https://evil.example.com"}
    assert httpx.options(url, headers=stranger).status_code == 400
    other = httpx.post(url, json=BODY, headers={**stranger, "authorization": f"Bearer {key}"}, timeout=10)
    assert "access-control-allow-origin" not in other.headers


def test_browsers_are_not_let_in_by_default(start: Start) -> None:
    gateway = start()
    assert httpx.options(f"{gateway.url}/v1/chat/completions", headers=PREFLIGHT).status_code == 405
    asked = httpx.post(f"{gateway.url}/v1/chat/completions", json=BODY, headers=ORIGIN, timeout=10)
    assert "access-control-allow-origin" not in asked.headers

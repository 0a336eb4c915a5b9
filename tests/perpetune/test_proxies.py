from __future__ import annotations

import urllib.request

import httpx
import pytest
import requests

from perpetune.proxies import is_loopback, is_on_this_machine, no_proxy_variables, spare_this_machine

PROXY = "http://proxy.example:3128"
LOCAL = ("http://127.0.0.1:4200/api", "http://localhost:5000", "http://[::1]:8000")


@pytest.mark.parametrize("before", [{}, {"no_proxy": "corp.example"}, {"NO_PROXY": "corp.example, localhost"}])
def test_requests_to_this_machine_go_past_the_proxy(before: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HTTP_PROXY": PROXY, "http_proxy": PROXY, "HTTPS_PROXY": PROXY, **before}.items():
        monkeypatch.setenv(name, value)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, before.get(name, ""))
    with httpx.Client() as client:
        assert _proxied(client, LOCAL[0]), "as it was"
    spare_this_machine()
    with httpx.Client() as client:
        for url in LOCAL:
            assert not _proxied(client, url)
            assert requests.utils.get_environ_proxies(url) == {}
        assert _proxied(client, "http://mlflow.example")
        assert _proxied(client, "http://corp.example") is not bool(before)
    assert urllib.request.proxy_bypass("127.0.0.1:4200")


def _proxied(client: httpx.Client, url: str) -> bool:
    return client._transport_for_url(httpx.URL(url)) is not client._transport


def test_what_was_named_stays_and_nothing_is_named_twice() -> None:
    once = no_proxy_variables({"NO_PROXY": "a.example,127.0.0.1", "no_proxy": " b.example "})
    assert once == dict.fromkeys(("no_proxy", "NO_PROXY"), "b.example,a.example,127.0.0.1,localhost,::1")
    assert no_proxy_variables(once) == once


@pytest.mark.parametrize(
    ("name", "loopback"),
    [("localhost", True), ("127.0.0.2", True), ("[::1]", True), ("::1", True), ("10.0.0.1", False), ("local", False)],
)
def test_names_of_this_machine(name: str, loopback: bool) -> None:
    assert is_loopback(name) is loopback


@pytest.mark.parametrize(
    ("url", "here"),
    [("http://[::1]:80/api", True), ("sqlite:///mlflow.db", False), ("http://[", False), ("", False), (LOCAL[0], True)],
)
def test_addresses_of_this_machine(url: str, here: bool) -> None:
    assert is_on_this_machine(url) is here


def test_a_socks_proxy_does_not_stop_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx needs socksio as soon as ALL_PROXY names one, also for requests that go past it."""
    pytest.importorskip("socksio")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    spare_this_machine()
    with httpx.Client() as client:
        assert not _proxied(client, LOCAL[0])
        assert _proxied(client, "http://mlflow.example")

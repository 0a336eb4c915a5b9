from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perpetune.gateway.api.request.disconnect import ClientDisconnected
from perpetune.gateway.api.request.whole_body import whole_body


def body_of(*messages: dict[str, Any]) -> bytes:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return asyncio.run(whole_body(receive))


def test_parts_are_joined_until_the_last() -> None:
    first = {"type": "http.request", "body": b"one ", "more_body": True}
    assert body_of(first, {"type": "http.request", "body": b"two"}) == b"one two"
    assert body_of({"type": "http.request", "body": b"all", "more_body": False}) == b"all"
    assert body_of({"type": "http.request"}) == b""


def test_a_client_that_leaves_has_sent_no_body() -> None:
    with pytest.raises(ClientDisconnected):
        body_of({"type": "http.request", "body": b"on", "more_body": True}, {"type": "http.disconnect"})

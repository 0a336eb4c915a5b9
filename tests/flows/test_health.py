"""The worker's health check answers one question and takes no orders."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from perpetune.flows.command import polled_within
from perpetune.flows.health import health_server


def test_it_is_healthy_while_the_worker_asks_for_runs() -> None:
    states = [True, False]
    with health_server("127.0.0.1", 0, lambda: states[0]) as port, httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}"
        assert client.get(f"{url}/health").status_code == 200
        states.pop(0)
        assert client.get(f"{url}/health?now").status_code == 503
        assert client.get(f"{url}/shutdown").status_code == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert client.request(method, f"{url}/shutdown", content="x=1").status_code == 501
        assert client.get(f"{url}/health").status_code == 503, "it goes on"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", trust_env=False)


@pytest.mark.parametrize(("seconds", "healthy"), [(None, False), (1, True), (120, False)])
def test_a_worker_that_has_not_asked_for_long_is_not_healthy(seconds: int | None, healthy: bool) -> None:
    last = None if seconds is None else datetime.now(UTC) - timedelta(seconds=seconds)
    runner = cast(Any, SimpleNamespace(last_polled=last))
    assert polled_within(runner, timedelta(seconds=60)) is healthy

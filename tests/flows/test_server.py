"""Which pages Prefect's server answers; that it refuses all others is tested on a running one (integration/test_up.py)."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_SERVER_CORS_ALLOWED_ORIGINS, temporary_settings

from perpetune.flows.server import allowed_origins

NAME = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (NAME, "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_its_own_pages_are_allowed_and_prefects_default_is_not() -> None:
    found = allowed_origins(["prefect:4200", "*"], 4202)
    assert {"http://localhost:4202", "http://127.0.0.1:4202", "http://prefect:4200", "https://prefect:4200"} <= {*found}
    assert not any("*" in origin for origin in found)


def test_pages_that_somebody_named_are_allowed(environment: pytest.MonkeyPatch) -> None:
    with temporary_settings({PREFECT_SERVER_CORS_ALLOWED_ORIGINS: "https://a.example, https://b.example"}):
        found = allowed_origins([], 4200)
    assert {"https://a.example", "https://b.example", "http://localhost:4200"} <= {*found}


def test_a_star_in_the_environment_is_somebodys_choice(environment: pytest.MonkeyPatch) -> None:
    environment.setenv(NAME, "*")
    with temporary_settings({PREFECT_SERVER_CORS_ALLOWED_ORIGINS: "*"}):
        assert allowed_origins([], 4200) == ["*"]

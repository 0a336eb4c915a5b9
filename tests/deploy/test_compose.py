"""docker-compose.yml runs what `perpetune up` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from perpetune.runtime import stack
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[2]
# Settings of `perpetune up` only: the path of Prefect's SQLite, the behaviour of its command line and servers, and the
# id by which the services of a machine with several workspaces know their own.
LOCAL = {"PREFECT_HOME", "PREFECT_CLI_PROMPT", "PERPETUNE_WORKSPACE_ID", *stack.SERVERS}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERPETUNE_HOME", str(tmp_path))
    return open_workspace(ROOT)


@pytest.mark.parametrize("name", ["worker", "gateway"])
def test_the_environment_is_that_of_up(services: dict[str, Any], workspace: Workspace, name: str) -> None:
    wanted = stack.environment(workspace, stack.Ports())
    assert set(wanted) - LOCAL <= set(services[name]["environment"])


def test_the_commands_are_those_of_up(services: dict[str, Any], workspace: Workspace) -> None:
    ports = stack.Ports()
    started = [*stack.servers(workspace, ports), stack.worker(ports.worker), stack.gateway(ports.gateway)]
    up = {service.name: service for service in started}
    for name in ("prefect", "mlflow", "worker", "gateway"):
        inside = services[name]["command"].removeprefix("python -m ").split()
        here = list(up[name].command[2:])
        assert inside[:2] == here[:2] or inside == here, name
        assert set(_options(here)) <= set(_options(inside)), name


@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker", "gateway"])
def test_no_proxy_comes_between_the_services(services: dict[str, Any], name: str) -> None:
    for spelling in ("NO_PROXY", "no_proxy"):
        spared = services[name]["environment"][spelling].split(",")
        assert {"localhost", "127.0.0.1", "prefect", "mlflow", "gateway", "postgres"} <= set(spared)


def test_servers_answer_only_to_their_names(services: dict[str, Any]) -> None:
    for name in ("prefect", "mlflow"):
        words = services[name]["command"].split()
        hosts = words[words.index("--allowed-hosts") + 1].split(",")
        assert f"{name}:{words[words.index('--port') + 1]}" in hosts
        assert not any("*" in host for host in hosts)


def test_versions_of_mlflow_agree() -> None:
    image = (ROOT / "mlflow" / "requirements.txt").read_text().splitlines()
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in image if line.startswith("mlflow==")] == [
        line for line in lock if line.startswith("mlflow==")
    ]


def _options(command: list[str]) -> list[str]:
    return [word for word in command if word.startswith("--")]

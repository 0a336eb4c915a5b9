"""docker-compose.yml runs what `perpetune up` runs, and each of its services is fit for production."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compose_file import read_compose

from perpetune.runtime import stack
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[2]
# Settings of `perpetune up` only: the behaviour of Prefect's command line and of its servers, and the id by which the
# services of a machine with several workspaces know their own.
LOCAL = {"PREFECT_CLI_PROMPT", "PERPETUNE_WORKSPACE_ID", *stack.SERVERS}
ENDING = {"bucket", "keys", "backup"}
GATEWAYS = ("gateway-1", "gateway-2")
HASHED = ((ROOT / "mlflow/requirements.lock"), (ROOT / "deploy/requirements.hashes"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose({})


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return dict(compose["services"])


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERPETUNE_HOME", str(tmp_path))
    return open_workspace(ROOT)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder after prepare.sh."""
    shutil.copytree(ROOT / "deploy/compose", tmp_path / "deploy/compose")
    shutil.copy(ROOT / ".env.example", tmp_path)
    _prepare(tmp_path)
    return tmp_path


def _prepare(folder: Path) -> None:
    subprocess.run(["sh", str(folder / "deploy/compose/prepare.sh")], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["worker", *GATEWAYS])
def test_the_environment_is_that_of_up(services: dict[str, Any], workspace: Workspace, name: str) -> None:
    wanted = stack.environment(workspace, stack.Ports())
    assert set(wanted) - LOCAL <= set(services[name]["environment"])


def test_the_commands_are_those_of_up(services: dict[str, Any], workspace: Workspace) -> None:
    ports = stack.Ports()
    started = [*stack.servers(workspace, ports), stack.worker(ports.worker), stack.gateway(ports.gateway)]
    up = {service.name: service for service in started}
    for name in ("prefect", "mlflow", "worker", *GATEWAYS):
        inside = services[name]["command"].removeprefix("python -m ").split()
        here = list(up[name.partition("-")[0]].command[2:])
        assert inside[:2] == here[:2] or inside == here, name
        assert set(_options(here)) <= set(_options(inside)), name


@pytest.mark.parametrize("name", ["prefect", "mlflow", "bucket", "worker", *GATEWAYS])
def test_no_proxy_comes_between_the_services(services: dict[str, Any], name: str) -> None:
    known = {"localhost", "127.0.0.1", "prefect", "mlflow", "proxy", "postgres", "s3", "vllm", *GATEWAYS}
    for spelling in ("NO_PROXY", "no_proxy"):
        assert known <= set(services[name]["environment"][spelling].split(","))


def test_servers_answer_only_to_their_names(services: dict[str, Any]) -> None:
    for name in ("prefect", "mlflow"):
        words = services[name]["command"].split()
        hosts = words[words.index("--allowed-hosts") + 1].split(",")
        assert f"{name}:{words[words.index('--port') + 1]}" in hosts
        assert not any("*" in host for host in hosts)


def test_every_service_restarts_is_limited_and_is_nobody_special(services: dict[str, Any]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert ("memory" in limits or name == "vllm") and "pids" in limits, name
        once = "no" if name == "backup" else "on-failure:5"  # people run it
        assert service["restart"] == (once if name in ENDING else "unless-stopped"), name
        user, group = service["user"].split(":")
        assert int(user) > 0 and group.isdigit(), name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["logging"]["options"]["max-file"]) <= 5, name
        assert ("healthcheck" in service) == (name not in ENDING), name
        assert not service.get("privileged") and "network_mode" not in service, name


def test_only_the_proxy_can_be_reached_from_elsewhere(services: dict[str, Any]) -> None:
    published = {name: port for name, service in services.items() for port in service.get("ports", ())}
    assert all(port.startswith("127.0.0.1:") for port in published.values())
    everywhere = read_compose({"PERPETUNE_BIND": "0.0.0.0"})["services"]
    reached = {
        name for name, each in everywhere.items() for port in each.get("ports", ()) if not port.startswith("127.0.0.1:")
    }
    assert reached == {"proxy"}


def test_services_wait_for_what_they_need(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            assert other in services, name
            condition = "service_completed_successfully" if other in ENDING else "service_healthy"
            assert wanted["condition"] == condition or name == "proxy", name


def test_each_secret_file_is_mounted_where_it_is_read(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", ())}
        text = json.dumps([service.get("command"), service.get("entrypoint"), service.get("environment")])
        assert set(re.findall(r"/run/secrets/[\w.]+", text)) <= mounted, name
    used = {secret for service in compose["services"].values() for secret in service.get("secrets", ())}
    assert used == set(compose["secrets"])


def test_prepare_writes_every_secret_once(compose: dict[str, Any], prepared: Path) -> None:
    files = {path.name: path.read_text() for path in (prepared / "secrets").iterdir()}
    assert set(files) == set(compose["secrets"])
    assert len(set(files.values())) == len(files) and all(len(text) >= 32 for text in files.values())
    assert (prepared / "secrets").stat().st_mode & 0o777 == 0o700
    assert all((prepared / "secrets" / name).stat().st_mode & 0o777 == 0o444 for name in files)
    _prepare(prepared)
    assert files == {path.name: path.read_text() for path in (prepared / "secrets").iterdir()}
    [identity] = json.loads(files["s3.json"])["identities"]
    assert identity["credentials"][0]["secretKey"] in files["s3_credentials"]


def test_prepare_leaves_settings_as_they_are(prepared: Path) -> None:
    lines = (prepared / ".env").read_text().splitlines()
    assert "PERPETUNE_UID=0" not in lines
    (prepared / ".env").write_text("PERPETUNE_UID=77\n")
    _prepare(prepared)
    assert (prepared / ".env").read_text() == "PERPETUNE_UID=77\n"


def test_git_never_sees_the_secrets() -> None:
    for name in (".env", "secrets/postgres_password", "secrets/s3.json"):
        done = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT)
        assert done.returncode == 0, name


def test_every_image_has_a_version_and_its_variable(services: dict[str, Any]) -> None:
    named = dict(re.findall(r"^# (\w+_IMAGE)=(\S+)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    text = (ROOT / "docker-compose.yml").read_text()
    assert dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", text)) == named
    for image in named.values():
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image), image
    built = {name for name, service in services.items() if "build" in service}
    assert {services[name]["image"] for name in set(services) - built} <= set(named.values())
    for dockerfile in ("deploy/Dockerfile", "mlflow/Dockerfile"):
        assert f"ARG PYTHON_IMAGE={named['PYTHON_IMAGE']}\n" in (ROOT / dockerfile).read_text()


def test_the_client_in_our_image_can_dump_what_compose_runs(services: dict[str, Any]) -> None:
    """pg_dump refuses a server that is newer than itself."""
    found = re.search(r"^ARG POSTGRES_CLIENT=(\d+)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    assert services["postgres"]["image"].startswith(f"postgres:{found[1]}-")


DOCKER = """#!/bin/sh
[ "$1 $2 $3" = "buildx imagetools inspect" ] && [ "$5" = --format ] || exit 9
case "$4" in grafana/*) echo "no such image" >&2; exit 1 ;; *) echo "sha256:$(echo "$4" | sha256sum | cut -c1-64)" ;; esac
"""


def test_images_are_pinned_with_the_digests_of_the_registry(tmp_path: Path) -> None:
    """With a fake `docker`; what it prints makes Compose use the digest."""
    _fake_docker(tmp_path, DOCKER.replace("grafana/*", "none"))
    done = _pin(tmp_path)
    assert done.returncode == 0, done.stderr
    pinned = dict(line.split("=", 1) for line in done.stdout.splitlines())
    images = {service["image"] for service in read_compose(pinned)["services"].values() if "build" not in service}
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image) for image in images)
    build = read_compose(pinned)["services"]["worker"]["build"]
    assert "@sha256:" in build["args"]["PYTHON_IMAGE"]


def test_pinning_stops_when_the_registry_does_not_know_an_image(tmp_path: Path) -> None:
    _fake_docker(tmp_path, DOCKER)
    assert _pin(tmp_path).returncode != 0


def _fake_docker(folder: Path, text: str) -> None:
    (folder / "docker").write_text(text)
    (folder / "docker").chmod(0o755)


def _pin(programs: Path) -> subprocess.CompletedProcess[str]:
    words = ["sh", str(ROOT / "deploy/compose/pin_images.sh")]
    return subprocess.run(words, env={"PATH": f"{programs}:/usr/bin:/bin"}, capture_output=True, text=True)


def test_secrets_become_variables(tmp_path: Path) -> None:
    secret = tmp_path / "a secret"
    secret.write_text('two "words" $HOME `id`\n')
    done = _with_secrets({"KEY__FILE": str(secret), "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"})
    assert done.returncode == 0, done.stderr
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert variables["KEY"] == 'two "words" $HOME `id`'
    assert "KEY__FILE" not in variables and variables["AWS_SHARED_CREDENTIALS_FILE"] == "/nowhere"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_container_does_not_start_without_its_secret(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    done = _with_secrets({"KEY__FILE": str(tmp_path / "secret")})
    assert done.returncode != 0 and done.stdout == ""
    assert str(tmp_path / "secret") in done.stderr


def _with_secrets(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = ["sh", str(ROOT / "deploy/with_secrets.sh"), "env"]
    return subprocess.run(words, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True)


def test_locks_with_hashes_hold_the_locked_versions() -> None:
    lock = _versions(ROOT / "requirements.lock")
    torch = lock.pop("torch")
    assert torch  # its build depends on the index that the image is built with
    mlflow, perpetune = (_versions(path) for path in HASHED)
    assert perpetune == lock
    assert (
        mlflow["mlflow"] == lock["mlflow"]
        and {name: mlflow[name] for name in mlflow if name in lock}.items() <= lock.items()
    )
    for path in HASHED:
        requirements = re.split(r"\n(?=\w)", path.read_text().rstrip())
        assert all("--hash=sha256:" in each for each in requirements)


def _versions(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s\\]+)", lock.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def _options(command: list[str]) -> list[str]:
    return [word for word in command if word.startswith("--")]

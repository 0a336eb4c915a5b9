"""deploy/compose/tls.yml with the certificates of certificates.sh: who is answered, and by which connection."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from compose_file import containers, read_compose
from waiting import eventually

from perpetune.engines.openai_api.tls import vllm_tls
from perpetune.runtime.processes.supervisor import free_ports
from perpetune.settings import Settings

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "deploy/compose/tls.yml"
SECRETS = "/run/secrets/"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder secrets/ after prepare.sh and certificates.sh."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "deploy/compose", folder / "deploy/compose")
    shutil.copy(ROOT / ".env.example", folder)
    for script, *names in (("prepare.sh",), ("certificates.sh", "api.example.org"), ("certificates.sh",)):
        subprocess.run(["sh", str(folder / "deploy/compose" / script), *names], check=True, capture_output=True)
    return folder / "secrets"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose({}, OVERLAY)


def test_each_secret_is_a_file_that_the_scripts_make(compose: dict[str, Any], secrets: Path) -> None:
    for name, service in compose["services"].items():
        text = repr([service.get(key) for key in ("command", "entrypoint", "environment", "healthcheck")])
        used = {each.removeprefix(SECRETS) for each in re.findall(rf"{SECRETS}[\w.]+", text)}
        assert used <= set(service.get("secrets", ())), name
    files = {path.name for path in secrets.iterdir()}
    assert {Path(each["file"]).name for each in compose["secrets"].values()} == files - {"vllm_ca.key"}
    assert (secrets / "vllm_ca.key").stat().st_mode & 0o077 == 0


def test_others_reach_the_proxy_by_tls_alone(compose: dict[str, Any]) -> None:
    assert compose["services"]["proxy"]["ports"] == ["127.0.0.1:8000:8000", "0.0.0.0:8443:8443"]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
@pytest.mark.parametrize("tls", [True, False])
def test_the_proxy_answers_by_tls_if_it_has_a_certificate(secrets: Path, tmp_path: Path, tls: bool) -> None:
    plain, encrypted, own = free_ports(3)
    text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    for before, after in ((8000, plain), (8443, encrypted), (8405, own)):
        text = text.replace(f"bind :{before}", f"bind 127.0.0.1:{after}")
    (tmp_path / "haproxy.cfg").write_text(text)
    service = read_compose({}, *([OVERLAY] if tls else []))["services"]["proxy"]
    environment = {name: here(value, secrets) for name, value in service.get("environment", {}).items()}
    with subprocess.Popen(
        ["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], env=os.environ | environment
    ) as proxy:
        try:
            eventually(lambda: answers(f"http://127.0.0.1:{own}/healthz"), 20)
            url, trusted = (
                f"https://localhost:{encrypted}/",
                ssl.create_default_context(cafile=str(secrets / "vllm_ca.pem")),
            )
            if tls:
                assert httpx.get(url, verify=trusted).status_code == 503  # there is no gateway
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    httpx.get(url)
            else:
                with pytest.raises(httpx.ConnectError, match="refused"):
                    httpx.get(url, verify=trusted)
        finally:
            proxy.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def server(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of uvicorn, vLLM's server, with the TLS options that Compose gives vLLM."""
    folder, [port] = tmp_path_factory.mktemp("vllm"), free_ports(1)
    (folder / "health.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    [*_, script, _] = containers({}, OVERLAY)["vllm"].command[:4]
    words = shlex.split(script)
    first = next(place for place, word in enumerate(words) if word.startswith("--ssl"))
    options = [here(word, secrets) for word in words[first:]]
    command = [sys.executable, "-m", "uvicorn", "--lifespan", "off", "--port", str(port), *options, "health:app"]
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            yield port
        finally:
            process.terminate()


@pytest.mark.integration
def test_gateways_and_worker_reach_vllm_and_others_do_not(server: int, secrets: Path) -> None:
    url = f"https://localhost:{server}/health"
    callers = ("gateway-1", "gateway-2", "worker")
    for name in callers:
        environment = containers({}, OVERLAY)[name].environment
        settings = Settings(
            vllm_url=environment["PERPETUNE_VLLM_URL"],
            vllm_ca=Path(here(environment["PERPETUNE_VLLM_CA"], secrets)),
            vllm_client_certificate=Path(here(environment["PERPETUNE_VLLM_CLIENT_CERTIFICATE"], secrets)),
        )
        context = vllm_tls(settings).context
        assert isinstance(context, ssl.SSLContext)
        eventually(partial(connects, url, context))
    stranger = ssl.create_default_context(cafile=str(secrets / "vllm_ca.pem"))
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        httpx.get(url, verify=stranger)


@pytest.mark.integration
def test_the_health_check_of_vllm_passes_by_mutual_tls(server: int, secrets: Path) -> None:
    python, flag, script = containers({}, OVERLAY)["vllm"].healthcheck
    assert (python, flag) == ("python3", "-c")
    script = here(script, secrets).replace("localhost:8000", f"localhost:{server}")
    eventually(lambda: subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0)


def connects(url: str, context: ssl.SSLContext) -> bool:
    try:
        return httpx.get(url, verify=context).status_code == 200
    except httpx.ConnectError as fault:
        if "refused" in str(fault):
            return False  # it starts
        raise


def here(text: str, secrets: Path) -> str:
    return text.replace(SECRETS, f"{secrets}/")

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.gateway.server import build_engine, listen, serve
from perpetune.params import load_params
from perpetune.settings import Settings
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PerpetuneError, match=f"port {port} is in use") as caught:
            listen("127.0.0.1", port)
    assert "--port" in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no such host.", 0), ("127.0.0.1", 99999)])
def test_an_address_that_is_not_ours(host: str, port: int) -> None:
    with pytest.raises(PerpetuneError, match="listen"):
        listen(host, port)


def test_a_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0


def test_a_gateway_before_vllm_does_without_torch() -> None:
    """It starts in a second or two and leaves the memory to the models."""
    code = """
import sys
from pathlib import Path
from perpetune.params import load_params
from perpetune.gateway import app
from perpetune.gateway.server import build_engine
from perpetune.settings import Settings
params = load_params(Path("params.yaml"))
params = params.model_copy(update={"serve": params.serve.model_copy(update={"engine": "vllm"})})
engine, _ = build_engine(params, Settings(vllm_url="http://127.0.0.1:1"))
from perpetune.loop.first_version import make_first_version
from perpetune.tracking.registry import RegistrySource
RegistrySource("reviews", Path("releases"))
assert type(engine).__name__ == "EngineBySystem"
print([name for name in ("torch", "transformers", "peft") if name in sys.modules])
"""
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr


def test_vllm_without_an_address_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERPETUNE_VLLM_URL", raising=False)
    params = load_params(Path(__file__).parents[3] / "params.yaml")
    params = params.model_copy(update={"serve": params.serve.model_copy(update={"engine": "vllm"})})
    with pytest.raises(PerpetuneError, match="PERPETUNE_VLLM_URL"):
        build_engine(params, Settings())


def test_the_engine_in_the_process_has_one_worker(tmp_path: Path) -> None:
    params = load_params(Path(__file__).parents[3] / "params.yaml")
    workspace = Workspace(tmp_path, params, Settings(mlflow_tracking_uri="http://127.0.0.1:1"))
    with pytest.raises(PerpetuneError, match="so it has one worker"):
        serve(workspace, "127.0.0.1", 0, workers=2)
    with pytest.raises(PerpetuneError, match="0 workers cannot serve"):
        serve(workspace, "127.0.0.1", 0, workers=0)


def test_a_missing_presidio_is_reported_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    params = load_params(Path(__file__).parents[3] / "params.yaml")
    params = params.model_copy(update={"log": params.log.model_copy(update={"redact": True})})
    nowhere = Settings(home=tmp_path, assets=tmp_path / "no base", mlflow_tracking_uri="http://127.0.0.1:1")
    with pytest.raises(PerpetuneError, match="Presidio"):
        serve(Workspace(tmp_path, params, nowhere), "127.0.0.1", 0)

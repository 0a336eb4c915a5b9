"""A workspace with the real MLflow on a SQLite store, a prediction log, and a small gateway on a free port."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from perpetune import registry
from perpetune.errors import PerpetuneError
from perpetune.tracking import close_run, connect, open_run
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('releases') / 'mlflow.db'}"


@dataclass
class Releases:
    """A workspace whose task has versions without files: nothing here loads them."""

    workspace: Workspace

    @property
    def task(self) -> str:
        return self.workspace.params.task.name

    def make(self) -> str:
        run = open_run(self.task, "refresh", {"perpetune.kind": "refresh"}, {})
        close_run(run, succeeded=True)
        client = MlflowClient()
        version = client.create_model_version(self.task, f"runs:/{run.id}/model", run.id)
        client.set_registered_model_alias(self.task, "challenger", str(version.version))
        return str(version.version)

    def aliases(self) -> list[str | None]:
        found = [registry.find(self.task, name) for name in ("champion", "previous", "challenger")]
        return [version.version if version else None for version in found]

    def tags(self, version: str) -> dict[str, str]:
        return dict(registry.get(self.task, version).tags)


@pytest.fixture
def releases(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., Releases]:
    """Open a workspace with these settings of `release`; each test has a task of its own."""
    for name in ("PREFECT_API_URL", "PERPETUNE_GATEWAY_URL", "PERPETUNE_DATABASE_URL", "PERPETUNE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    connect(mlflow_store)
    task = request.node.name.lower().replace("_", "-").replace("[", "-").replace("]", "")[:60]
    MlflowClient().create_experiment(task, artifact_location=str(tmp_path / "artifacts"))
    MlflowClient().create_registered_model(task)

    def begin(gateway: str | None = None, cooldown_minutes: float = 60, **release: object) -> Releases:
        if gateway:
            monkeypatch.setenv("PERPETUNE_GATEWAY_URL", gateway)
        settings = yaml.safe_load((ROOT / "params.yaml").read_text())
        settings["task"]["name"] = task
        settings["release"] |= release
        settings["refresh"]["cooldown_minutes"] = cooldown_minutes
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
        return Releases(open_workspace(tmp_path))

    return begin


@dataclass
class FollowingGateway:
    """Serves what the registry names, save versions in `refuses`; it answers the two paths of a release and no other.

    `names_back` says whether it moves the alias of a refused champion back itself.
    """

    url: str
    refuses: set[str] = field(default_factory=set)
    names_back: bool = True
    serving: str | None = None
    task: str = ""
    asked: list[str] = field(default_factory=list)

    def check(self) -> tuple[int, dict[str, object]]:
        wanted, trouble = registry.wanted(self.task), "ok"
        if wanted.champion not in self.refuses:
            self.serving = wanted.champion
        else:
            trouble = f"version {wanted.champion} answers otherwise than when it was evaluated"
            if self.names_back and self.serving:
                registry.restore(self.task, self.serving, None)
        trial = wanted.trial.version if wanted.trial else None
        if trial in self.refuses:
            trial, trouble = None, f"version {trial} does not load"
        return 200, {"serving": self.serving, "champion": wanted.champion, "trial": trial, "release": trouble}

    def roll_back(self) -> tuple[int, dict[str, object]]:
        try:
            rolled_back, restored = registry.roll_back(self.task)
        except PerpetuneError as fault:
            return 409, {"error": {"message": str(fault)}}
        self.serving = restored
        return 200, {"from": rolled_back, "to": restored, "seconds": 0.01}


@pytest.fixture
def gateway() -> Iterator[FollowingGateway]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            following.asked.append(self.path)
            status, said = {
                "/v1/release/check": following.check,
                "/v1/release/rollback": following.roll_back,
            }[self.path]()
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        following = FollowingGateway(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield following
        server.shutdown()
        thread.join(timeout=5)

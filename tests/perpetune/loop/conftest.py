"""A workspace with the real MLflow on a SQLite store, a prediction log, and a small gateway on a free port."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.curation.running.layout import REFERENCE
from perpetune.errors import PerpetuneError
from perpetune.loop.rollout.deploy import release
from perpetune.loop.run_context import DEVICE_HOURS, open_loop_run
from perpetune.loop.watch.check import CheckResult, check
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Example, Feedback, Message, Prediction, RecordedAnswer
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect, find_run, log_metrics, log_text, open_run
from perpetune.workspace import Workspace, open_workspace


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> str:
    return new_mlflow_store(tmp_path_factory.mktemp("releases"))


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
    """Open a workspace with these settings of `release`; each test has its own task name."""
    for name in ("PREFECT_API_URL", "PERPETUNE_GATEWAY_URL", "PERPETUNE_DATABASE_URL", "PERPETUNE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    connect(mlflow_store)
    task = request.node.name.lower().replace("_", "-").replace("[", "-").replace("]", "")[:60]
    MlflowClient().create_experiment(task, artifact_location=str(tmp_path / "artifacts"))
    MlflowClient().create_registered_model(task)

    def begin(
        gateway: str | None = None,
        watch: Mapping[str, object] = {},
        refresh: Mapping[str, object] = {},
        promote: Mapping[str, object] = {},
        **release: object,
    ) -> Releases:
        if gateway:
            monkeypatch.setenv("PERPETUNE_GATEWAY_URL", gateway)
        write_params(tmp_path, task={"name": task}, release=release, watch=watch, refresh=refresh, promote=promote)
        return Releases(open_workspace(tmp_path))

    return begin


LABELS = 80


@dataclass
class Watched(Releases):
    """A workspace whose versions answer, get labels and are checked."""

    def released(self, *, right: float, champion_right: float | None = None) -> str:
        """A released version with these accuracies in its evaluation."""
        version = self.make()
        run = find_run(registry.get(self.task, version).run_id)
        log_text(run, answers(right), "answers/challenger.jsonl")
        if champion_right is not None:
            log_text(run, answers(champion_right), "answers/champion.jsonl")
        registry.tag_version(self.task, version, {"answers": f"{run.id}/challenger"})
        release(self.workspace, version)
        return version

    def traffic(self, version: str, right: float, batch: int = 0, labels: int = LABELS, text: str = "") -> None:
        """Log labelled answers, of which the ratio `right`, evenly spread, are correct. `text` is an input for all."""
        kinds = [("good", int((number + 1) * right + 1e-9) > int(number * right + 1e-9)) for number in range(LABELS)]
        self.labelled(version, batch, kinds, labels, text)

    def labelled(
        self, version: str, batch: int, kinds: Sequence[tuple[str, bool]], labels: int = LABELS, text: str = ""
    ) -> None:
        """Log answers, (label, is right) pairs, of which the first `labels` get their label."""
        log, now = open_log(self.workspace.settings.prediction_log), datetime.now(UTC)
        rows = [
            Prediction(
                id=f"{version}-{batch}-{number}",
                time=now,
                task=self.task,
                version=version,
                messages=(Message(role="user", content=text or f"well {batch} {number}?"),),
                input=text or f"well {batch} {number}?",
                output=label if is_right else _other(label),
                prompt_tokens=1,
                completion_tokens=1,
                latency_ms=10,
            )
            for number, (label, is_right) in enumerate(kinds)
        ]
        record_rows(log, rows)
        for row, (label, _) in list(zip(rows, kinds, strict=True))[:labels]:
            add_feedback(log, Feedback(request_id=row.id, time=now, label=label, propensity=labels / LABELS))
        log.dispose()

    def checked(self) -> CheckResult:
        run = open_loop_run(self.workspace, "watch", "manual", "a test", "flow-run")
        check_result = check(self.workspace, run, "flow-run")
        close_run(run, succeeded=True)
        assert check_result is not None
        return check_result

    def refreshed(self, trigger: str, device_hours: float, *, succeeded: bool = True) -> None:
        """A refresh that made no version."""
        run = open_run(self.task, "refresh", {"perpetune.kind": "refresh", "perpetune.trigger": trigger}, {})
        if succeeded:
            log_metrics(run, {DEVICE_HOURS: device_hours})
        close_run(run, succeeded=succeeded)


def _other(label: str) -> str:
    return "bad" if label == "good" else "good"


def answers(right: float) -> str:
    scores = [float(number < right * LABELS) for number in range(LABELS)]
    rows = [
        RecordedAnswer(
            id=f"f{number}", holdout="frozen", output="good" if score else "bad", confidence=None, score=score
        )
        for number, score in enumerate(scores)
    ]
    return "".join(row.model_dump_json() + "\n" for row in rows)


@pytest.fixture
def watched(releases: Callable[..., Releases]) -> Callable[..., Watched]:
    """Open a workspace with a reference and these settings; no cooldown and no limit unless they say so."""

    def begin(
        watch: Mapping[str, object] = {},
        refresh: Mapping[str, object] = {},
        promote: Mapping[str, object] = {},
        **release: object,
    ) -> Watched:
        waits = {"cooldown_minutes": 0, "new_labels": 0, **refresh}
        opened = releases(watch=watch, refresh=waits, promote=promote, **release)
        folder = opened.workspace.root / REFERENCE
        folder.mkdir(parents=True, exist_ok=True)
        row = Example(input="fine", output="good", id="r", group="r", source="test")
        (folder / "reference.jsonl").write_text(row.model_dump_json() + "\n")
        return Watched(opened.workspace)

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
            return 409, {"error": {"message": str(fault), "code": "nothing_to_roll_back"}}
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
            """No log lines."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        following = FollowingGateway(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield following
        server.shutdown()
        thread.join(timeout=5)

"""Gateway and registry are killed with kill -9 in the middle of swaps and writes.

After each restart the gateway serves what the alias names, and the log holds all that was acknowledged. The gateway
and MLflow's server are the real ones; the model is a tiny random one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from perpetune import registry
from perpetune.inference.answers import Answerer
from perpetune.params import BaseParams, LoraParams, Params, load_params
from perpetune.records import Message, Prediction, to_json, with_instruction
from perpetune.release import EVALUATED, Evaluated, Golden, ModelCard
from perpetune.services import Service, answers, free_ports
from perpetune.serving.log import open_log, recent_predictions
from perpetune.stack import Ports, environment, gateway, servers
from perpetune.tracking import close_run, connect, log_text, open_run
from perpetune.training.base import load_base
from perpetune.training.methods import trainable
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[2]
LABELS = ("blue", "green", "red")
THINGS = ("sky", "sea", "grass", "leaf", "blood", "fire")
INSTRUCTION = "which colour"
ROUNDS = 6


class Process:
    """A service that can be killed at any moment and started again on the same port."""

    def __init__(self, service: Service, folder: Path, environment: dict[str, str]) -> None:
        self.service = service
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / f"{self.service.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.service.command,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(lambda: answers(str(self.service.health)))

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        """To all of its group: MLflow's server runs workers."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.wait(timeout=30)
            self._process = None


@dataclass
class Clients:
    """Ask and judge without pause, and remember what the gateway said that it did."""

    url: str
    answered: dict[str, str] = field(default_factory=dict)
    judged: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._ask_forever, args=(seed,)) for seed in range(3)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask_forever(self, seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    self._ask(client, draw)
                except httpx.TransportError:  # killed: what was under way was not acknowledged
                    time.sleep(0.05)

    def _ask(self, client: httpx.Client, draw: random.Random) -> None:
        said = [{"role": "user", "content": f"the {draw.choice(THINGS)}"}]
        reply = client.post("/v1/chat/completions", json={"model": "colours", "messages": said})
        if reply.status_code == 503:  # just started: nothing is loaded yet
            time.sleep(0.05)
            return
        if reply.status_code != 200:
            self.refused.append(reply.text)
            return
        body = reply.json()
        self.answered[body["id"]] = body["perpetune"]["version"]
        label = draw.choice(LABELS)
        if client.post("/v1/feedback", json={"request_id": body["id"], "label": label}).status_code == 200:
            self.judged[body["id"]] = label


@dataclass(frozen=True)
class World:
    workspace: Workspace
    mlflow: Process
    gateway: Process
    versions: list[str]
    clients: Clients

    def serving(self) -> str | None:
        with suppress(httpx.TransportError):
            found = httpx.get(f"{self.clients.url}/readyz", timeout=5).json()["serving"]
            return str(found) if found else None
        return None

    def swap_to(self, version: str) -> threading.Thread:
        """Move the alias and tell the gateway, which may be killed before it has answered."""
        registry.promote("colours", version)

        def tell() -> None:
            with suppress(httpx.TransportError):
                httpx.post(f"{self.clients.url}/v1/release/check", timeout=60)

        telling = threading.Thread(target=tell)
        telling.start()
        return telling


@pytest.fixture
def world(tmp_path: Path, tiny_params: BaseParams, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    ports = Ports(*free_ports(len(Ports.__dataclass_fields__)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{ports.mlflow}")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1")  # none is needed: what is not set would be started
    params = _settings(tmp_path, tiny_params)
    workspace = open_workspace(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (mlflow_service,) = servers(open_workspace(tmp_path), ports)
    around = environment(workspace, ports) | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports.mlflow}"}
    mlflow = Process(mlflow_service, tmp_path, around)
    serving = Process(gateway(ports.gateway), tmp_path, around)
    clients = Clients(f"http://127.0.0.1:{ports.gateway}")
    try:
        mlflow.start()
        connect(f"http://127.0.0.1:{ports.mlflow}")
        versions = [_register(params, tmp_path, number) for number in range(3)]
        registry.promote("colours", versions[0])
        serving.start()
        yield World(workspace, mlflow, serving, versions, clients)
    finally:
        clients.stop()
        serving.stop()
        mlflow.stop()


def _settings(folder: Path, base: BaseParams) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["base"] = base.model_dump()
    values["task"] |= {"name": "colours", "instruction": INSTRUCTION, "labels": list(LABELS)}
    values["train"] |= {"precision": "fp32"}
    values["serve"] |= {"poll_seconds": 0.2}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(folder / "params.yaml")


def _register(params: Params, folder: Path, number: int) -> str:
    """A version that answers otherwise than the others, with golden prompts as evaluation records them."""
    adapter = folder / "adapters" / str(number)
    base = load_base(params.base, folder, "fp32")
    lora = LoraParams(rank=4, alpha=8, dropout=0.0, target_modules="all-linear")
    model = trainable(base, "lora", lora, number)
    torch.manual_seed(number)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    model.save_pretrained(str(adapter))
    answerer = Answerer(load_base(params.base, folder, "fp32"), 256)
    answerer.load_adapter("new", adapter)
    asked = [(Message(role="user", content=f"the {thing}"),) for thing in THINGS]
    said = answerer.answer("new", [with_instruction(INSTRUCTION, messages) for messages in asked], LABELS, 4)
    golden = tuple(
        Golden(messages=messages, output=answer.text, confidence=answer.confidence)
        for messages, answer in zip(asked, said, strict=True)
    )
    card = ModelCard(
        task="colours",
        kind="classification",
        instruction=INSTRUCTION,
        labels=LABELS,
        base=params.base,
        base_digest=base.digest,
        precision="fp32",
        max_new_tokens=4,
    )
    run = open_run("colours", f"refresh {number}", {"perpetune.kind": "refresh"}, {})
    version = registry.register(run, adapter, card, {"adapter.digest": str(number)})
    log_text(run, to_json(Evaluated(golden=golden, max_tokens=4).model_dump(mode="json")), EVALUATED)
    close_run(run, succeeded=True)
    return version


def eventually(happened: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def logged(workspace: Workspace) -> dict[str, Prediction]:
    log = open_log(f"sqlite:///{workspace.home / 'predictions.db'}")
    try:
        return {each.id: each for each in recent_predictions(log, "colours", limit=None)}
    finally:
        log.dispose()


@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_swaps_alias_service_and_log_agree(world: World) -> None:
    eventually(lambda: world.serving() == world.versions[0])
    world.clients.start()
    draw = random.Random(7)
    for number in range(1, ROUNDS + 1):
        version = world.versions[number % len(world.versions)]
        before = len(world.clients.answered)
        eventually(lambda before=before: len(world.clients.answered) > before + 5)  # type: ignore[misc]
        telling = world.swap_to(version)
        time.sleep(draw.uniform(0, 0.3))
        victim = world.gateway if number % 2 else world.mlflow
        victim.kill()
        telling.join()
        victim.start()
        eventually(lambda version=version: world.serving() == version)  # type: ignore[misc]
        champion = registry.find("colours", "champion")
        assert champion is not None and champion.version == version
    world.clients.stop()
    answered, judged = world.clients.answered, world.clients.judged
    assert world.clients.refused == []
    assert set(answered.values()) == set(world.versions)
    world.gateway.stop()  # which writes what waits
    stored = logged(world.workspace)
    assert answered.keys() - stored.keys() == set()
    assert {name: stored[name].version for name in answered} == answered
    assert {name: stored[name].label for name in judged} == judged

"""Gateway, engine and registry are killed with kill -9 in the middle of swaps and writes.

After each restart the gateway serves what the alias names, and the log holds all that was acknowledged. The gateway
and MLflow's server are the real ones; the model is a tiny random one in the gateway's process, or a server of vLLM's
shape, whose versions each say a label of their own.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from mlflow.exceptions import MlflowException
from waiting import eventually
from workspaces import write_params

from perpetune.inference.predictor import Predictor
from perpetune.model.adapters import trainable
from perpetune.model.base import load_base
from perpetune.model.release import EVALUATED, GoldenPrompt, ModelCard, ServingFacts
from perpetune.params import BaseParams, LoraParams, Params, load_params
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Message, Prediction, to_json, with_instruction
from perpetune.runtime.processes.supervisor import Service, answers, free_ports
from perpetune.runtime.stack import PYTHON, Ports, environment, gateway, servers
from perpetune.testing.fake_vllm import MASS
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect, log_text, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

LABELS = ("blue", "green", "red")
THINGS = ("sky", "sea", "grass", "leaf", "blood", "fire")
INSTRUCTION = "which colour"
ROUNDS = 2
PAUSE = 0.1  # seconds of each client: without, three take the cores from what they ask
START_SECONDS = 240  # for MLflow on a busy machine


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
        eventually(lambda: answers(str(self.service.health)), START_SECONDS)

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
    """Send requests and feedback, and record the gateway's responses."""

    url: str
    answered: dict[str, str] = field(default_factory=dict)
    said: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    told_to_wait: Counter[str] = field(default_factory=Counter)
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
            while not self._stop.wait(PAUSE):
                try:
                    self._ask(client, draw)
                except httpx.TransportError:  # killed: what was under way was not acknowledged
                    time.sleep(0.05)

    def _ask(self, client: httpx.Client, draw: random.Random) -> None:
        said = [{"role": "user", "content": f"the {draw.choice(THINGS)}"}]
        reply = client.post("/v1/chat/completions", json={"model": "colours", "messages": said})
        if reply.status_code == 503 and reply.headers.get("retry-after"):
            self.told_to_wait[reply.json()["error"]["code"]] += 1
            time.sleep(0.05)
            return
        if reply.status_code != 200:
            self.refused.append(reply.text)
            return
        body = reply.json()
        self.answered[body["id"]] = body["perpetune"]["version"]
        self.said[body["perpetune"]["version"]].add(body["choices"][0]["message"]["content"])
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
    vllm: Process | None = None

    def readiness(self) -> dict[str, Any]:
        with suppress(httpx.TransportError):
            return dict(httpx.get(f"{self.clients.url}/readyz", timeout=15).json())
        return {}

    def serving(self) -> str | None:
        return self.readiness().get("serving")

    def champion(self) -> str | None:
        found = registry.find("colours", "champion")
        return found.version if found else None

    def goes_on(self, answers: int = 20) -> None:
        """Return when so many more were answered."""
        before = len(self.clients.answered)
        eventually(lambda: len(self.clients.answered) >= before + answers, 90)

    def must_have_logged_all(self) -> None:
        """Stop everything, and compare the clients' responses with the log."""
        self.clients.stop()
        answered, judged = self.clients.answered, self.clients.judged
        assert self.clients.refused == []
        self.gateway.stop()  # which writes what waits
        stored = logged(self.workspace)
        assert answered.keys() - stored.keys() == set()
        assert {name: stored[name].version for name in answered} == answered
        assert {name: stored[name].label for name in judged} == judged

    def swap_to(self, version: str) -> threading.Thread:
        """Move the alias and reload the gateway, which may be killed before it answers."""
        registry.promote("colours", version)

        def tell() -> None:
            with suppress(httpx.TransportError):
                httpx.post(f"{self.clients.url}/v1/release/check", timeout=60)

        telling = threading.Thread(target=tell)
        telling.start()
        return telling


@pytest.fixture
def world(
    tmp_path: Path, tiny_params: BaseParams, monkeypatch: pytest.MonkeyPatch, seed_servers: Callable[..., None]
) -> Iterator[World]:
    with _running(tmp_path, tiny_params, "transformers", monkeypatch, seed_servers) as world:
        yield world


@pytest.fixture
def vllm_world(
    tmp_path: Path, tiny_params: BaseParams, monkeypatch: pytest.MonkeyPatch, seed_servers: Callable[..., None]
) -> Iterator[World]:
    with _running(tmp_path, tiny_params, "vllm", monkeypatch, seed_servers) as world:
        yield world


@contextmanager
def _running(
    folder: Path, base: BaseParams, engine: str, monkeypatch: pytest.MonkeyPatch, seed: Callable[..., None]
) -> Iterator[World]:
    ports = Ports(*free_ports(len(Ports.__dataclass_fields__)))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{ports.mlflow}")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1")  # none is needed: what is not set would be started
    params = _settings(folder, base, engine)
    workspace = open_workspace(folder)
    seed(workspace, "mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (mlflow_service,) = servers(open_workspace(folder), ports)
    around = environment(workspace, ports) | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports.mlflow}"}
    mlflow = Process(mlflow_service, folder, around)
    serving = Process(gateway(ports.gateway), folder, around)
    vllm = Process(_fake_vllm(ports.vllm, base), folder, around) if ports.vllm and engine == "vllm" else None
    clients = Clients(f"http://127.0.0.1:{ports.gateway}")
    register = _register_spoken if vllm else _register
    try:
        mlflow.start()
        connect(f"http://127.0.0.1:{ports.mlflow}")
        versions = [register(params, folder, number) for number in range(3)]
        registry.promote("colours", versions[0])
        if vllm:
            vllm.start()
        serving.start()
        yield World(workspace, mlflow, serving, versions, clients, vllm)
    finally:
        clients.stop()
        for process in (serving, vllm, mlflow):
            if process:
                process.stop()


def _fake_vllm(port: int, base: BaseParams) -> Service:
    own = ("--base", base.model.removeprefix("path:"), "--seconds", "0.03")
    command = (PYTHON, "-m", "perpetune.testing.fake_vllm", "--port", str(port), *own)
    return Service("vllm", command, port, f"http://127.0.0.1:{port}/health")


def _settings(folder: Path, base: BaseParams, engine: str) -> Params:
    path = write_params(
        folder,
        base=base.model_dump(),
        task={"name": "colours", "instruction": INSTRUCTION, "labels": list(LABELS)},
        train={"precision": "fp32"},
        serve={"poll_seconds": 0.2, "engine": engine},
    )
    return load_params(path)


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
    predictor = Predictor(load_base(params.base, folder, "fp32"), 256)
    predictor.load_adapter("new", adapter)
    asked = [(Message(role="user", content=f"the {thing}"),) for thing in THINGS]
    said = predictor.answer("new", [with_instruction(INSTRUCTION, messages) for messages in asked], LABELS, 4)
    golden = tuple(
        GoldenPrompt(messages=messages, output=answer.text, confidence=answer.confidence)
        for messages, answer in zip(asked, said, strict=True)
    )
    return _registered(params, number, adapter, base.digest, golden)


def _register_spoken(params: Params, folder: Path, number: int) -> str:
    """A version for the fake vLLM that nearly always answers with the label of this number."""
    adapter = folder / "adapters" / str(number)
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (adapter / MASS).write_text(json.dumps({label: 0.9 if label == LABELS[number] else 0.05 for label in LABELS}))
    golden = tuple(
        GoldenPrompt(messages=(Message(role="user", content=f"the {thing}"),), output=LABELS[number], confidence=0.9)
        for thing in THINGS
    )
    return _registered(params, number, adapter, "of no model", golden)


def _registered(params: Params, number: int, adapter: Path, base_digest: str, golden: tuple[GoldenPrompt, ...]) -> str:
    card = ModelCard(
        task="colours",
        kind="classification",
        instruction=INSTRUCTION,
        labels=LABELS,
        base=params.base,
        base_digest=base_digest,
        precision="fp32",
        max_new_tokens=4,
    )
    run = open_run("colours", f"refresh {number}", {"perpetune.kind": "refresh"}, {})
    version = registry.register(run, adapter, card, {"adapter.digest": str(number)})
    log_text(run, to_json(ServingFacts(golden=golden, max_tokens=4).model_dump(mode="json")), EVALUATED)
    close_run(run, succeeded=True)
    return version


def logged(workspace: Workspace) -> dict[str, Prediction]:
    log = open_log(f"sqlite:///{workspace.home / 'predictions.db'}")
    try:
        return {each.id: each for each in recent_predictions(log, "colours", limit=None)}
    finally:
        log.dispose()


@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_swaps_alias_service_and_log_agree(world: World) -> None:
    eventually(lambda: world.serving() == world.versions[0], 90)
    world.clients.start()
    world.goes_on(6)
    draw = random.Random(7)
    for number in range(1, ROUNDS + 1):
        version = world.versions[number % len(world.versions)]
        telling = world.swap_to(version)
        time.sleep(draw.uniform(0, 0.3))
        victim = world.gateway if number % 2 else world.mlflow
        victim.kill()
        telling.join()
        victim.start()
        eventually(lambda version=version: world.serving() == version, 90)  # type: ignore[misc]
        champion = registry.find("colours", "champion")
        assert champion is not None and champion.version == version
        world.goes_on(6)
    assert set(world.clients.answered.values()) == set(world.versions)
    world.must_have_logged_all()


@pytest.mark.timeout(600)
def test_a_registry_killed_during_promotions_and_an_engine_killed_during_swaps(vllm_world: World) -> None:
    """One stack for both, and no version answers in the place of another meanwhile."""
    world = vllm_world
    eventually(lambda: world.serving() == world.versions[0], 90)
    world.clients.start()
    world.goes_on()
    _kill_the_registry_during_promotions(world)
    _kill_the_engine_during_swaps(world)
    _must_each_say_its_own(world)
    world.must_have_logged_all()


def _kill_the_registry_during_promotions(world: World) -> None:
    """What a promotion had written by then is what serves after the restart; repeated, it is whole."""
    draw = random.Random(3)
    for old, new in pairwise(world.versions):
        promoting = threading.Thread(target=_promote_if_it_answers, args=(new,))
        promoting.start()
        time.sleep(draw.uniform(0, 0.06))
        world.mlflow.kill()
        promoting.join()
        waited = Counter(world.clients.told_to_wait)
        eventually(lambda: world.readiness()["registry"] != "ok", 90)
        world.goes_on()
        assert world.clients.told_to_wait == waited, "it serves on with what is loaded"
        world.mlflow.start()
        eventually(lambda: world.readiness()["registry"] == "ok" and world.serving() == world.champion(), 90)
        assert world.champion() in (old, new)
        registry.promote("colours", new)
        eventually(lambda new=new: world.serving() == new, 90)  # type: ignore[misc]
        previous = registry.find("colours", "previous")
        assert world.champion() == new and previous is not None and previous.version == old
        world.goes_on()


def _kill_the_engine_during_swaps(world: World) -> None:
    assert world.vllm
    draw = random.Random(5)
    for version in world.versions:
        world.goes_on()
        told = world.clients.told_to_wait["engine_unavailable"]
        telling = world.swap_to(version)
        time.sleep(draw.uniform(0, 0.4))
        world.vllm.kill()
        telling.join()
        eventually(lambda told=told: world.clients.told_to_wait["engine_unavailable"] > told, 90)  # type: ignore[misc]
        world.vllm.start()
        eventually(lambda version=version: world.serving() == version, 90)  # type: ignore[misc]
        assert world.champion() == version, "an engine that is down is no reason to refuse a version"
        world.goes_on()


def _promote_if_it_answers(version: str) -> None:
    with suppress(MlflowException):
        registry.promote("colours", version)


def _must_each_say_its_own(world: World) -> None:
    """No version ever answered in the place of another, also after the engine had forgotten all of them."""
    assert world.clients.said == {version: {LABELS[number]} for number, version in enumerate(world.versions)}

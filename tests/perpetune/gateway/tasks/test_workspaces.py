"""Two real workspaces behind one gateway: real registry, logs and engines, asked by OpenAI's client."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from aiohttp import web
from gateways import PARAMS, running_app
from mlflow.tracking import MlflowClient
from waiting import eventually
from workspaces import write_params

from perpetune.engines.engine import Engine
from perpetune.gateway.server import app_of, build_engine
from perpetune.gateway.tasks.workspaces import tasks_app
from perpetune.model.adapters import trainable
from perpetune.model.base import load_base
from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer
from perpetune.model.release import ModelCard, ServedBase, ServingFacts, evaluated_file
from perpetune.params import BaseParams, LoraParams, Params
from perpetune.prediction_log.api_keys import add_key
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Example, write_jsonl
from perpetune.runtime.served.registered import register, served_workspaces
from perpetune.settings import Settings
from perpetune.testing.fake_vllm import MASS, FakeVllm
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect, log_text, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

LABELS = {"reviews": ("blue", "green", "red"), "intents": ("fire", "sky")}
LEARNED = {"reviews": "green", "intents": "sky"}  # what the second version answers, if vLLM serves it


@dataclass
class World:
    workspaces: dict[str, Workspace]
    url: str
    client: openai.OpenAI
    vllm: FakeVllm | None
    engines: list[Engine]
    adapter: Path

    def ask(self, model: str, client: openai.OpenAI | None = None) -> openai.types.chat.ChatCompletion:
        return (client or self.client).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "the sky"}]
        )

    def check(self, task: str) -> dict[str, str]:
        return dict(httpx.post(f"{self.url}/v1/release/check", json={"task": task}, timeout=60).json())

    def tuned(self, task: str) -> str:
        """A version of the task: the weights are the same for all, and so is its number."""
        params = self.workspaces[task].params
        folder = self.workspaces[task].root / "tuned"
        shutil.copytree(self.adapter, folder)
        (folder / MASS).write_text(json.dumps({LEARNED[task]: 0.9, LABELS[task][0]: 0.1}))
        card = ModelCard(
            task=task,
            kind="classification",
            instruction="which colour",
            labels=LABELS[task],
            base=params.base,
            base_digest="b",
            precision="fp32",
            max_new_tokens=4,
        )
        run = open_run(task, "refresh", {"perpetune.kind": "refresh"}, {})
        version = registry.register(run, folder, card, {})
        log_text(run, ServingFacts().model_dump_json(), evaluated_file(card.system))
        close_run(run, succeeded=True)
        return version

    def labels(self, task: str) -> list[str | None]:
        log = open_log(self.workspaces[task].settings.prediction_log)
        try:
            return [row.label for row in recent_predictions(log, task, limit=None)]
        finally:
            log.dispose()


@contextmanager
def vllm_server(fake: FakeVllm) -> Iterator[str]:
    """The stand-in of vLLM on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(fake.app(), shutdown_timeout=1)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(params=["transformers", "vllm"])
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_params: BaseParams,
    colour_rows: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    new_mlflow_store: Callable[[Path], str],
) -> Iterator[World]:
    for name in ("PERPETUNE_HOME", "PERPETUNE_DATABASE_URL", "PERPETUNE_WORKSPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    store = new_mlflow_store(tmp_path)
    connect(store)
    for task, labels in LABELS.items():
        MlflowClient().create_experiment(task, artifact_location=str(tmp_path / "artifacts" / task))
        write_workspace(tmp_path / task, task, labels, tiny_params, str(request.param), colour_rows)
    adapter = tmp_path / "adapter"
    torch.manual_seed(1)
    lora = LoraParams(rank=2, alpha=4, dropout=0.0, target_modules="all-linear")
    trainable(load_base(tiny_params, tmp_path, "fp32"), "lora", lora, 1).save_pretrained(str(adapter))
    monkeypatch.chdir(tmp_path / "reviews")
    with ExitStack() as stack:
        fake = FakeVllm({"blue": 1.0}, load_chat_tokenizer(tiny_params, tmp_path)) if request.param == "vllm" else None
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        if fake:
            monkeypatch.setenv("PERPETUNE_VLLM_URL", stack.enter_context(vllm_server(fake)))
        main = open_workspace()
        register(main, tmp_path / "intents")
        workspaces = [main, *served_workspaces(main)]
        log = open_log(main.settings.prediction_log)
        stack.callback(log.dispose)
        engines: list[Engine] = []

        def build(params: Params, settings: Settings) -> tuple[Engine, ServedBase]:
            engine, base = build_engine(params, settings)
            engines.append(engine)
            return engine, base

        app = stack.enter_context(tasks_app(workspaces, log, build, app_of))
        url = stack.enter_context(running_app(app, PARAMS))
        client = stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
        eventually(lambda: httpx.get(f"{url}/readyz", timeout=10).status_code == 200)
        yield World({each.params.task.name: each for each in workspaces}, url, client, fake, engines, adapter)


def write_workspace(
    folder: Path, task: str, labels: Sequence[str], base: BaseParams, engine: str, rows: Sequence[Example]
) -> None:
    folder.mkdir()
    write_params(
        folder,
        task={"name": task, "instruction": "which colour", "labels": list(labels)},
        base=base.model_dump(),
        fetch={"sources": ["inbox"]},
        train={"precision": "fp32"},
        evaluate={"max_new_tokens": 4, "few_shot_examples": 1, "encoder": None},
        serve={"poll_seconds": 60, "engine": engine},
        release={"parity_prompts": 1},
    )
    write_jsonl(
        folder / "data" / "inbox" / "mine.jsonl",
        [row.model_copy(update={"output": labels[number % len(labels)]}) for number, row in enumerate(rows)],
    )


def test_one_gateway_serves_both_and_keeps_them_apart(world: World) -> None:
    assert len(world.engines) == 1, "the base is loaded once"
    first = {task: world.ask(task) for task in LABELS}
    for task, said in first.items():
        assert said.model == f"{task}@1", "each has a first version of its own"
        assert said.choices[0].message.content in LABELS[task]
    assert [model.id for model in world.client.models.list()] == ["reviews", "reviews@1", "intents", "intents@1"]

    versions = {task: world.tuned(task) for task in LABELS}
    assert versions == {"reviews": "2", "intents": "2"}
    registry.promote("intents", "2")
    assert world.check("intents")["serving"] == "2"
    assert world.check("reviews")["serving"] == "1"
    assert [world.ask(task).model for task in LABELS] == ["reviews@1", "intents@2"], "the swap of one leaves the other"
    registry.begin_trial("reviews", "2", "canary", 1.0)
    assert world.check("reviews")["trial"] == "2"
    later = {task: world.ask(task) for task in LABELS}
    assert [each.model for each in later.values()] == ["reviews@2", "intents@2"]
    if world.vllm:
        names = sorted(name.rpartition("-")[0] for name in world.vllm.adapters)
        assert names == ["vintents-2", "vreviews-2"], "the same bytes and numbers under two names"
        assert {task: each.choices[0].message.content for task, each in later.items()} == LEARNED
    rolled = httpx.post(f"{world.url}/v1/release/rollback", json={"task": "intents"}, timeout=60).json()
    assert (rolled["from"], rolled["to"]) == ("2", "1")
    assert [world.ask(task).model for task in LABELS] == ["reviews@2", "intents@1"]
    state = httpx.get(f"{world.url}/readyz", timeout=10).json()["tasks"]
    assert {task: (state[task]["champion"], state[task]["trial"]) for task in LABELS} == {
        "reviews": ("1", "2"),
        "intents": ("1", None),
    }

    feedback: Any = httpx.post(
        f"{world.url}/v1/feedback",
        json=[{"request_id": first[task].id, "label": LABELS[task][1]} for task in LABELS],
        timeout=10,
    ).json()
    assert [each["status"] for each in feedback["data"]] == ["recorded", "recorded"]
    for task, labels in LABELS.items():
        eventually(lambda task=task, labels=labels: labels[1] in world.labels(task))  # type: ignore[misc]
    eventually(lambda: (len(world.labels("reviews")), len(world.labels("intents"))) == (4, 4))

    log = open_log(world.workspaces["reviews"].settings.prediction_log)
    key = add_key(log, "desk", ["ask"], ["intents"])
    log.dispose()
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=0) as scoped:
        eventually(lambda: httpx.get(f"{world.url}/v1/models", timeout=10).status_code == 401)
        assert world.ask("intents", scoped).model == "intents@1"
        with pytest.raises(openai.PermissionDeniedError, match="for intents only, not for reviews"):
            world.ask("reviews", scoped)
        with pytest.raises(openai.NotFoundError, match="`tickets` does not exist here, but `intents`"):
            world.ask("tickets", scoped)

"""A prompted, a tuned and a linear version behind the same API: the real registry, gateway, engines and OpenAI client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow
import openai
import pandas as pd
import pytest
import torch
import uvicorn
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.classifiers.linear import linear_answer, linear_model
from perpetune.gateway.app import create_app
from perpetune.gateway.releases.first_release import BootstrappingSource
from perpetune.gateway.server import build_engine, listen
from perpetune.loop.first_version import make_first_version
from perpetune.loop.untrained_versions import save_linear_version
from perpetune.model.adapters import trainable
from perpetune.model.base import load_base
from perpetune.model.release import GoldenPrompt, ModelCard, ServingFacts, evaluated_file
from perpetune.params import LoraParams, load_params
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Example, Message, write_jsonl
from perpetune.settings import Settings
from perpetune.tracking import registry
from perpetune.tracking.registry import RegistrySource
from perpetune.tracking.runs import close_run, connect, log_text, open_run
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow

TASK = "systems"
LABELS = ("blue", "green", "red")


@dataclass
class World:
    workspace: Workspace
    client: openai.OpenAI
    url: str

    def ask(self, text: str, model: str = TASK, **more: object) -> openai.types.chat.ChatCompletion:
        messages = [{"role": "user", "content": text}]
        return self.client.chat.completions.create(model=model, messages=messages, **more)  # type: ignore[no-any-return, call-overload]

    def check(self) -> dict[str, str]:
        return dict(httpx.post(f"{self.url}/v1/release/check", timeout=60).json())

    def tuned(self) -> str:
        params = self.workspace.params
        loaded = load_base(params.base, self.workspace.assets, "fp32")
        model = trainable(loaded, "lora", LoraParams(rank=2, alpha=4, dropout=0.0, target_modules="all-linear"), 1)
        folder = self.workspace.root / "tuned"
        torch.manual_seed(1)
        model.save_pretrained(str(folder))
        return self._registered(folder, self._card(), ServingFacts())

    def linear(self, rows: list[Example], *, honest: bool = True) -> str:
        model = linear_model(7).fit([row.input for row in rows], [row.output for row in rows])
        folder = self.workspace.root / f"linear-{honest}"
        card = self._card().model_copy(update={"system": "linear"})
        save_linear_version(folder, card, model)
        said = linear_answer(model, "the sky")
        golden = GoldenPrompt(
            messages=(Message(role="user", content="the sky"),),
            output=said.text if honest else "red",
            confidence=said.confidence,
        )
        return self._registered(folder, card, ServingFacts(golden=(golden,)))

    def _card(self) -> ModelCard:
        return ModelCard(
            task=TASK,
            kind="classification",
            instruction="which colour",
            labels=LABELS,
            base=self.workspace.params.base,
            base_digest="b",
            precision="fp32",
            max_new_tokens=4,
        )

    def _registered(self, folder: Path, card: ModelCard, evaluated: ServingFacts) -> str:
        run = open_run(TASK, "refresh", {"perpetune.kind": "refresh"}, {})
        version = registry.register(run, folder, card, {})
        log_text(run, evaluated.model_dump_json(), evaluated_file(card.system))
        close_run(run, succeeded=True)
        return version


@pytest.fixture
def world(
    tmp_path: Path,
    tiny_folder: Path,
    colour_rows: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    new_mlflow_store: Callable[[Path], str],
) -> Iterator[World]:
    params = write_params(
        tmp_path,
        task={"name": TASK, "instruction": "which colour"},
        base={"model": f"path:{tiny_folder}", "revision": None},
        fetch={"sources": ["inbox"]},
        train={"precision": "fp32"},
        evaluate={"max_new_tokens": 4, "few_shot_examples": 3},
        serve={"poll_seconds": 60},
    )
    ingested = [
        row.model_copy(update={"id": f"{row.id}{position}", "input": f"{say} {row.id}", "group": f"{row.id}{position}"})
        for position, say in enumerate(("the", "a", "say", "it is"))
        for row in colour_rows
    ]
    write_jsonl(tmp_path / "data" / "inbox" / "mine.jsonl", ingested)
    store = new_mlflow_store(tmp_path)
    connect(store)
    MlflowClient().create_experiment(TASK, artifact_location=str(tmp_path / "artifacts"))
    addresses = Settings(mlflow_tracking_uri=store, database_url=f"sqlite:///{tmp_path / 'predictions.db'}")
    workspace = Workspace(tmp_path, load_params(params), addresses)
    with ExitStack() as stack:
        log = open_log(addresses.prediction_log)
        stack.callback(log.dispose)
        engine, base = build_engine(workspace.params, addresses)
        app = create_app(
            TASK,
            engine=engine,
            source=BootstrappingSource(
                RegistrySource(TASK, tmp_path / "cache"), lambda: make_first_version(workspace, base)
            ),
            log=log,
            params=workspace.params.serve,
            max_new_tokens=4,
            release_params=workspace.params.release,
            spool=tmp_path / "spool",
        )
        address = stack.enter_context(listen("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{address.getsockname()[1]}"
        client = stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
        yield World(workspace, client, url)
        server.should_exit = True
        thread.join(timeout=20)


def test_all_three_answer_swap_go_back_and_are_held_to_parity(world: World, colour_rows: list[Example]) -> None:
    first = world.check()["serving"]
    assert registry.fetch_release(TASK, first, world.workspace.root / "cache").shots, "it is shown examples"
    said = world.ask("the sky")
    assert said.model == f"{TASK}@{first}"
    assert said.choices[0].message.content in LABELS
    assert said.usage is not None and said.usage.prompt_tokens > 10
    assert set(said.model_extra["perpetune"]["probabilities"]) == set(LABELS)  # type: ignore[index]

    linear = world.linear(colour_rows)
    registry.promote(TASK, linear)
    assert world.check()["serving"] == linear
    said = world.ask("the sky", n=2)
    assert [choice.message.content for choice in said.choices] == ["blue", "blue"]
    assert (said.model, said.usage and said.usage.total_tokens) == (f"{TASK}@{linear}", 0)
    streamed = world.ask("the fire", stream=True, stream_options={"include_usage": True})
    pieces = [chunk.choices[0].delta.content for chunk in streamed if chunk.choices]  # type: ignore[attr-defined]
    assert "".join(piece or "" for piece in pieces) == "red"
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        world.ask("the sky", logprobs=True)

    tuned = world.tuned()
    registry.begin_trial(TASK, tuned, "canary", 1.0)
    assert world.check()["trial"] == tuned
    assert world.ask("the sky").model == f"{TASK}@{tuned}"
    assert world.ask("the sky", model=f"{TASK}@{linear}").choices[0].message.content == "blue"
    registry.begin_trial(TASK, tuned, "shadow", 1.0)
    world.check()
    assert world.ask("the sky").model == f"{TASK}@{linear}"

    registry.promote(TASK, tuned)
    assert world.check()["serving"] == tuned
    back = httpx.post(f"{world.url}/v1/release/rollback", json={"task": TASK}, timeout=60).json()
    assert (back["from"], back["to"]) == (tuned, linear)
    assert world.ask("the sky").model == f"{TASK}@{linear}"

    wrong = world.linear(colour_rows, honest=False)
    registry.promote(TASK, wrong)
    state = world.check()
    assert state["serving"] == linear and "golden prompts are answered differently" in state["release"]

    frame = pd.DataFrame({"input": ["the sky", "fire"]})
    for version in (first, linear, tuned):
        answers = mlflow.pyfunc.load_model(f"models:/{TASK}/{version}").predict(frame)
        assert set(answers["output"]) <= set(LABELS) and (answers["confidence"] > 0.3).all()
    log = open_log(world.workspace.settings.prediction_log)
    world.client.close()
    assert {each.version for each in recent_predictions(log, TASK, limit=None)} <= {first, linear, tuned}
    log.dispose()

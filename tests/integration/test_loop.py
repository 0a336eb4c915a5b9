"""The real loop through real servers: Prefect, MLflow, DVC, Evidently and the gateway.

A help desk's questions are routed to billing or to technicians; later people ask of parcels, which have a
desk of their own. The model is a tiny random one.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import httpx
import pytest
from waiting import eventually
from workspaces import write_params

from perpetune.curation.ingest import ingest
from perpetune.curation.running.layout import INBOX
from perpetune.demo.application import Application
from perpetune.explain.status import newest_decision, read_status
from perpetune.loop.rollout.promote import promote_manually
from perpetune.loop.run_context import use_mlflow
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import counts
from perpetune.records import Example, write_jsonl
from perpetune.runtime.prefect_api import FlowRun, Prefect
from perpetune.runtime.processes.supervisor import Child, Supervisor, free_ports
from perpetune.runtime.stack import Ports, environment, gateway, servers, worker
from perpetune.tracking import registry
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, dict[str, object]] = {
    "task": {"name": "desk", "instruction": "Which desk answers this question?", "new_labels": True},
    "fetch": {"sources": ["inbox", "traffic"]},
    "reference": {"min_recent": 15},
    "split": {"frozen": 0.3, "validation": 0.1, "recent": 0.4},
    "train": {"precision": "fp32", "epochs": 5.0, "validations": 2, "validation_rows": 20, "learning_rate": 6e-3},
    "label_errors": {"action": "off"},
    "evaluate": {
        "max_new_tokens": 8,
        "few_shot_examples": 2,
        "batch_tokens": 512,
        "bootstrap_samples": 200,
        "encoder": None,
    },
    "promote": {"margin": 0.2, "min_rows": 15, "max_forgetting": 2.0, "max_slowdown": None, "max_cost": None},
    "serve": {"poll_seconds": 2.0},
    "watch": {"cron": "0 0 29 2 *", "window": 60, "min_rows": 20},
    "refresh": {"cooldown_minutes": 0, "new_labels": 0},
}
QUESTIONS = {
    "billing": ("invoice", "refund", "card payment", "receipt", "subscription fee", "discount"),
    "technical": ("screen", "keyboard", "battery", "password", "printer", "headset"),
    "shipping": ("parcel", "courier", "delivery", "package", "tracking number", "shipment"),
}
OPENINGS = ("Hello, my", "Please help: the", "Since Monday our", "I have a problem, the", "What about the", "Again the")
ENDINGS = ("is wrong", "never came", "is not right any more")


def questions(desk: str) -> list[Example]:
    """Differently worded questions for one desk, in the order of the draw."""
    words = list(product(OPENINGS, QUESTIONS[desk], ENDINGS))
    random.Random(7).shuffle(words)
    return [
        Example(input=" ".join(parts) + ".", output=desk, id=f"{desk}-{n}", group=f"{desk}-{n}", source="test")
        for n, parts in enumerate(words)
    ]


def known_words() -> list[str]:
    rows = [row for desk in QUESTIONS for row in questions(desk)]
    text = " ".join([*(f"{row.input} {row.output}" for row in rows), str(SETTINGS["task"]["instruction"])])
    return sorted({*text.split(), "system", "user", "assistant"})


@dataclass(frozen=True)
class World:
    workspace: Workspace
    children: dict[str, Child]
    prefect: Prefect
    application: Application

    def run(self, flow: str) -> FlowRun:
        ended = self.prefect.follow(self.prefect.start(f"{flow}/desk", {"trigger": "manual"}), print)
        assert ended.state == "COMPLETED", ended.message
        return ended

    def alias(self, name: registry.Alias) -> str | None:
        found = registry.find("desk", name)
        return found.version if found else None

    def events(self) -> list[str]:
        body = {"filter": {"event": {"prefix": ["perpetune.model."]}}, "limit": 50}
        found = httpx.post(f"{self.prefect.url}/events/filter", json=body).raise_for_status().json()["events"]
        return [str(event["event"]) for event in reversed(found)]


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    random_model: Callable[[Path, Sequence[str], int], Path],
    seed_servers: Callable[..., None],
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("desk")
    base = random_model(tmp_path_factory.mktemp("base"), known_words(), 256)
    write_params(folder, **SETTINGS, base={"model": f"path:{base}", "revision": None})
    shutil.copy(ROOT / "dvc.yaml", folder)
    old = dict(os.environ)
    os.environ["PERPETUNE_ASSETS"] = str(ROOT / "assets")
    try:
        workspace = open_workspace(folder)
        ports = Ports(*free_ports(4))
        os.environ |= environment(workspace, ports)
        seed_servers(workspace)
        with Supervisor(folder, workspace.home / "logs", os.environ, print) as supervisor:
            supervisor.start(servers(workspace, ports))
            supervisor.start([worker(ports.worker), gateway(ports.gateway)])
            workspace = open_workspace(folder)
            use_mlflow(workspace)
            yield World(
                workspace,
                {child.service.name: child for child in supervisor.children},
                Prefect(str(workspace.settings.prefect_api_url)),
                Application(str(workspace.settings.gateway_url), "desk"),
            )
    finally:
        os.environ.clear()
        os.environ |= old


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_the_loop(world: World) -> None:
    billing, technical, shipping = (questions(desk) for desk in QUESTIONS)
    write_jsonl(world.workspace.root / "start.jsonl", [*billing[:70], *technical[:70]])
    ingest(world.workspace.root / "start.jsonl", world.workspace.root / INBOX)

    eventually(lambda: read_status(world.workspace).serving == "1", every=1)  # the prompted base, before any training
    world.run("refresh")
    decision, _ = newest_decision(world.workspace, "refresh")
    assert decision.outcome == "promote", decision.reasons
    # On so easy a task TF-IDF is as good: what was trained, version 2, gives way to the linear model, version 3.
    chosen = decision.ids.model_version
    assert chosen in ("2", "3")
    assert (world.alias("champion"), world.alias("previous")) == (chosen, "1")
    eventually(lambda: read_status(world.workspace).serving == chosen, every=1)
    happened = {"perpetune.model.promoted", "perpetune.model.deployed", "perpetune.model.refreshed"}
    eventually(lambda: set(world.events()) == happened, every=1)
    assert _scheduled(world) > 0
    if chosen != "2":
        promote_manually(world.workspace, "2", "the tuned model is what this is about")
    eventually(lambda: read_status(world.workspace).serving == "2", every=1)
    assert world.alias("challenger") is None

    known = world.application.send([*billing[70:100], *technical[70:100]])
    world.application.label(known)
    assert sum(one.answer == one.example.output for one in known) > 45
    world.run("watch")
    assert newest_decision(world.workspace, "watch")[0].outcome == "keep"

    serving = world.children["gateway"].process.pid
    world.application.label(world.application.send(shipping[:70]))
    world.run("watch")
    decision, _ = newest_decision(world.workspace, "watch")
    assert decision.outcome == "retrain", decision.reasons
    eventually(lambda: "perpetune.model.decayed" in world.events(), every=1)
    with world.application.trickle(iter(shipping[70:] * 20), 0.5) as meanwhile:
        started = eventually(
            lambda: [run for run in world.prefect.runs_of("refresh/desk") if "decay" in run.name], every=1
        )
        ended = world.prefect.follow(started[0], print)
        assert ended.state == "COMPLETED", ended.message
        newest = newest_decision(world.workspace, "refresh")[0].ids.model_version
        assert (world.alias("champion"), world.alias("previous")) == (newest, "2")
        eventually(lambda: meanwhile()[-1].version == newest)
    assert [one for one in world.application.asked if one.answer is None] == []
    assert world.children["gateway"].process.pid == serving, "the swap needed no restart"
    assert world.children["gateway"].restarts == 0

    after = world.application.send([*shipping[70:90], *billing[100:]])
    assert sum(one.answer == one.example.output for one in after) > 0.8 * len(after)
    assert {one.version for one in after} == {newest}
    eventually(lambda: _logged(world) == len(world.application.asked))


def _scheduled(world: World) -> int:
    body = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    return int(httpx.post(f"{world.prefect.url}/flow_runs/count", json=body).raise_for_status().json())


def _logged(world: World) -> int:
    log = open_log(world.workspace.settings.prediction_log)
    try:
        return counts(log, "desk").predictions
    finally:
        log.dispose()

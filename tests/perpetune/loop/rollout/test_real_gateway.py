"""Trials and going back through the real gateway and the real registry; only the model is a fake."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from command_line import perpetune
from waiting import eventually

from perpetune.curation.running.layout import REFERENCE
from perpetune.gateway.app import create_app
from perpetune.gateway.server import listen
from perpetune.loop.rollout.deploy import release
from perpetune.loop.rollout.promote import promote_manually
from perpetune.loop.rollout.replay import compared_by_gateway
from perpetune.loop.rollout.trial import check_trial, start_trial
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.watch.check import check
from perpetune.model.release import ModelCard
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import counts
from perpetune.records import Example, Message, RecordedAnswer, write_jsonl
from perpetune.testing.fake_engine import FakeEngine
from perpetune.tracking import registry
from perpetune.tracking.registry import RegistrySource
from perpetune.tracking.runs import close_run, find_run, log_text, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

Open = Callable[..., Any]
USERS = 120


@dataclass
class World:
    """A workspace with its gateway. `right` says which versions answer "good", which is right; others say "bad"."""

    workspace: Workspace
    client: httpx.Client
    right: set[str]
    folder: Path

    @property
    def task(self) -> str:
        return self.workspace.params.task.name

    def make(self) -> str:
        adapter = self.folder / "tuned"
        adapter.mkdir(exist_ok=True)
        card = ModelCard(
            task=self.task,
            kind="classification",
            instruction="How is it?",
            labels=("bad", "good"),
            base=self.workspace.params.base,
            base_digest="b",
            precision="fp32",
            max_new_tokens=4,
        )
        run = open_run(self.task, "refresh", {"perpetune.kind": "refresh"}, {})
        version = registry.register(run, adapter, card, {})
        close_run(run, succeeded=True)
        return version

    def ask(self, user: str) -> dict[str, Any]:
        body = {"model": self.task, "messages": [{"role": "user", "content": "well?"}], "user": user}
        answer = self.client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        return dict(answer.json())

    def be_asked(self, users: int = USERS) -> int:
        """Questions of so many users, all of which should have been "good" and are labelled so; returns how many were."""
        outputs = []
        for number in range(users):
            answer = self.ask(f"user {number}")
            outputs.append(answer["choices"][0]["message"]["content"])
            said = {"request_id": answer["id"], "label": "good"}
            self.client.post("/v1/feedback", json=said).raise_for_status()
        return outputs.count("good")

    def ready(self) -> dict[str, Any]:
        return dict(self.client.get("/readyz").json())

    def judged(self) -> Any:
        """The first verdict; what was asked may still be on its way into the log."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            check = check_trial(self.workspace, "flow")
            assert check is not None
            if check.decision is not None:
                return check
            time.sleep(0.2)
        raise AssertionError(check and check.verdict.reasons)


@pytest.fixture
def world(releases: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    workspace = releases(strategy="canary", traffic_ratio=0.5).workspace
    settings = workspace.params.serve.model_copy(update={"poll_seconds": 60.0})  # nothing but what asks for it moves it
    right: set[str] = set()

    def say(version: str, messages: Sequence[Message]) -> str:
        return "good" if version in right else "bad"

    with ExitStack() as stack:
        log = open_log(workspace.settings.prediction_log)
        stack.callback(log.dispose)
        app = create_app(
            workspace.params.task.name,
            engine=FakeEngine(say),
            source=RegistrySource(workspace.params.task.name, tmp_path / "cache"),
            log=log,
            params=settings,
            max_new_tokens=16,
            release_params=workspace.params.release,
            spool=tmp_path / "spool",
        )
        address = stack.enter_context(listen("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{address.getsockname()[1]}"
        monkeypatch.setenv("PERPETUNE_GATEWAY_URL", url)
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        yield World(open_workspace(workspace.root), client, right, tmp_path)
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the gateway did not stop"


def aliases(world: World) -> list[str | None]:
    found = [registry.find(world.task, name) for name in ("champion", "previous", "challenger")]
    return [version.version if version else None for version in found]


def test_a_good_canary_is_promoted_and_rolled_back_manually(world: World) -> None:
    first, second = world.make(), world.make()
    assert release(world.workspace, first).served
    start_trial(world.workspace, second)
    world.right.add(second)
    tried = world.be_asked()
    assert 0.3 * USERS < tried < 0.7 * USERS, "half of the users"
    check = world.judged()
    assert check.verdict.outcome == "promote", check.verdict.reasons
    assert (check.evidence.requests, check.released.served) == (tried, True)
    assert (aliases(world), world.ready()["serving"]) == ([second, first, None], second)
    assert world.ask("anybody")["choices"][0]["message"]["content"] == "good"

    said = perpetune(world.workspace.root, "rollback", "--json")
    assert said.exit_code == 0, said.stderr
    went = json.loads(said.stdout)
    assert (went["rolled_back"], went["restored"], went["decision"]["outcome"]) == (second, first, "roll back")
    print(f"the gateway went back {went['seconds']:.3f} s after it was asked")
    assert world.ask("anybody")["choices"][0]["message"]["content"] == "bad"
    assert aliases(world) == [first, None, None]
    again = world.client.post("/v1/release/rollback", json={"task": world.task})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "nothing_to_roll_back")


def test_a_bad_canary_is_aborted(world: World) -> None:
    first, second = world.make(), world.make()
    assert release(world.workspace, first).served
    start_trial(world.workspace, second)
    world.right.add(first)
    assert world.be_asked() < 0.7 * USERS
    check = world.judged()
    assert check.verdict.outcome == "abort", check.verdict.reasons
    assert (aliases(world), world.ready()["serving"]) == ([first, None, None], first)
    assert {world.ask(f"user {number}")["choices"][0]["message"]["content"] for number in range(20)} == {"good"}


def test_the_gateway_serves_a_manually_promoted_version(world: World) -> None:
    first, second = world.make(), world.make()
    assert release(world.workspace, first).served
    world.right.add(second)
    done = promote_manually(world.workspace, second, "it is better")
    assert (done.released.served, done.released.previous, world.ready()["serving"]) == (True, first, second)
    assert world.ask("anybody")["choices"][0]["message"]["content"] == "good"
    assert aliases(world) == [second, first, None]


def decays(world: World, *, previous_right: bool) -> Any:
    """The check of a champion that was promoted with 95% right and is wrong in production."""
    first, second = world.make(), world.make()
    for version, right in ((first, 0.9), (second, 0.95)):
        run = find_run(registry.get(world.task, version).run_id)
        log_text(run, recorded(right), "answers/challenger.jsonl")
        registry.tag_version(world.task, version, {"answers": f"{run.id}/challenger"})
    log_text(run, recorded(0.9), "answers/champion.jsonl")
    folder = world.workspace.root / REFERENCE
    folder.mkdir(parents=True)
    write_jsonl(folder / "reference.jsonl", [Example(input="fine", output="good", id="r", group="r", source="test")])
    assert release(world.workspace, first).served and release(world.workspace, second).served
    world.right |= {first} if previous_right else set()
    assert world.be_asked(60) == 0
    eventually(lambda: counted(world) == 60)
    run = open_loop_run(world.workspace, "watch", "manual", "a test", "flow-run")
    result = check(world.workspace, run, "flow-run")
    close_run(run, succeeded=True)
    assert result is not None
    return result.decision


def recorded(right: float) -> str:
    rows = [
        RecordedAnswer(id=str(row), holdout="frozen", output="good", confidence=None, score=float(row < 80 * right))
        for row in range(80)
    ]
    return "".join(row.model_dump_json() + "\n" for row in rows)


def counted(world: World) -> int:
    log = open_log(world.workspace.settings.prediction_log)
    try:
        return counts(log, world.task).labelled
    finally:
        log.dispose()


def test_the_previous_version_is_asked_the_same_inputs_before_a_rollback(world: World) -> None:
    decision = decays(world, previous_right=True)
    assert decision.outcome == "roll back", decision.reasons
    assert "better on the same inputs: 100.0 against 0.0 of the champion on 60 rows" in decision.reason
    assert any(reason.startswith("60 labels came unasked and count") for reason in decision.reasons), decision.reasons
    log = open_log(world.workspace.settings.prediction_log)
    assert counts(log, world.task).predictions == 60, "what was asked again is no traffic"
    log.dispose()


def test_there_is_no_rollback_to_a_version_that_does_no_better(world: World) -> None:
    """In the evaluation it scored higher than the champion scores now; on the same inputs it is wrong, too."""
    decision = decays(world, previous_right=False)
    assert decision.outcome != "roll back"
    assert any("Version 1 is not shown to be better on the same inputs" in reason for reason in decision.reasons)
    line = compared_by_gateway(world.workspace)
    assert line.startswith("the previous version is not shown to be better than version 2 on the same inputs: 0.0 ag")
    said = perpetune(world.workspace.root, "rollback")
    assert said.exit_code == 0 and "previous version is not shown to be better" in said.stderr, said.stderr
    assert aliases(world) == ["1", None, None], "a person decides"

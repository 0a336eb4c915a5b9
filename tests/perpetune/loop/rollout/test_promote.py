"""Manual promotion in the real registry, with a small gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from command_line import perpetune

from perpetune.errors import PerpetuneError
from perpetune.explain.status import read_status
from perpetune.loop.rollout.promote import emit_events, promote_manually
from perpetune.loop.rollout.rollback import roll_back
from perpetune.model.release import ModelCard, System
from perpetune.monitoring.detector_state import DETECTOR, from_text, new_state, to_text, update_state
from perpetune.params import BaseParams
from perpetune.policy.decision.record import Decision
from perpetune.statistics.sequential.change_point import WeightedScore
from perpetune.tracking import registry
from perpetune.tracking.runs import artifact, artifact_names, close_run, log_metrics, open_run

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


def make(world: Any, tmp_path: Path, system: System = "tuned", base: BaseParams | None = None) -> str:
    """A version with its card, as `registry.register` makes it, that scored 0.9 on 100 rows and was rejected."""
    folder = tmp_path / "version"
    folder.mkdir(exist_ok=True)
    card = ModelCard(
        task=world.task,
        kind="classification",
        instruction="How is it?",
        labels=("bad", "good"),
        base=base or world.workspace.params.base,
        base_digest="b",
        precision="fp32",
        max_new_tokens=4,
        system=system,
    )
    run = open_run(world.task, "refresh", {"perpetune.kind": "refresh"}, {})
    measured = {"tuned": "challenger", "prompted": "few-shot", "linear": "linear"}[system]
    name = f"frozen/{measured}/accuracy"
    log_metrics(run, {name: 0.9, f"{name}_low": 0.82, f"{name}_high": 0.95, "frozen/rows": 100.0})
    version = registry.register(run, folder, card, {})
    registry.tag_version(world.task, version, {"decision": "reject"})
    close_run(run, succeeded=True)
    return version


@pytest.mark.parametrize("system", ["tuned", "prompted", "linear"])
def test_a_rejected_version_can_be_promoted_manually(
    releases: Open, gateway: Any, tmp_path: Path, system: System
) -> None:
    world = releases(gateway.url)
    gateway.task = world.task
    version = make(world, tmp_path, system)
    done = promote_manually(world.workspace, version, "dearer, and worth it")
    assert (done.system, done.released.served, gateway.serving) == (system, True, version)
    assert world.aliases() == [version, None, None]
    (newest,) = decisions_of_later(world, version)
    assert (newest.kind, newest.outcome, newest.ids) == ("promotion by hand", "promote", done.decision.ids)
    assert newest.reason == (
        f"Version {version} was promoted manually: dearer, and worth it; the verdict before was: reject"
    )
    assert world.tags(version)["decision"] == "promote"


def decisions_of_later(world: Any, version: str) -> Iterator[Decision]:
    """The decisions on a version after its own run."""
    run = registry.get(world.task, version).run_id
    for name in artifact_names(run, "decisions"):
        path = artifact(run, name, world.workspace.root / "read")
        assert path is not None
        yield Decision.from_json(path.read_text())


def test_the_command_prints_the_serving_version_and_logs_the_reason(
    releases: Open, gateway: Any, tmp_path: Path
) -> None:
    world = releases(gateway.url)
    gateway.task = world.task
    first, second = make(world, tmp_path), make(world, tmp_path, "linear")
    promote_manually(world.workspace, first, "the first")
    said = perpetune(world.workspace.root, "promote", second, "--reason", "as good, and cheaper")
    assert said.exit_code == 0, said.stderr
    assert f"version {second} (linear) serves after" in said.stdout
    assert (gateway.serving, world.aliases()[:2]) == (second, [second, first])
    back = perpetune(world.workspace.root, "promote", first, "--reason", "it was better", "--json")
    found = json.loads(back.stdout)
    assert (found["version"], found["previous"], found["served"], found["system"]) == (first, second, True, "tuned")
    assert found["decision"]["evidence"]["reason"] == "it was better"
    assert found["decision"]["ids"]["champion_version"] == second


def test_a_reason_is_required(releases: Open) -> None:
    said = perpetune(releases().workspace.root, "promote", "1")
    assert said.exit_code == 2
    assert "--reason" in said.stderr


def test_a_version_that_does_not_exist_lists_those_that_do(releases: Open, tmp_path: Path) -> None:
    world = releases()
    with pytest.raises(PerpetuneError, match="there is no version yet: run `perpetune refresh`"):
        promote_manually(world.workspace, "9", "why not")
    tuned, linear = make(world, tmp_path), make(world, tmp_path, "linear")
    said = perpetune(world.workspace.root, "promote", "9", "--reason", "why not")
    assert said.exit_code == 1
    assert "has no version 9" in said.stderr
    assert f"version {tuned}, tuned, 90.0% (82.0% to 95.0%, n=100), reject" in said.stderr
    assert f"version {linear} (challenger), linear model, 90.0% (82.0% to 95.0%, n=100), reject" in said.stderr


def test_the_champion_and_another_base_are_refused(releases: Open, tmp_path: Path) -> None:
    world = releases()
    first = make(world, tmp_path)
    promote_manually(world.workspace, first, "the first")
    with pytest.raises(PerpetuneError, match=f"version {first} of {world.task} is already champion"):
        promote_manually(world.workspace, first, "again")
    other = BaseParams(model="hf:other/base", revision="2")
    strange = make(world, tmp_path, base=other)
    with pytest.raises(PerpetuneError, match="was trained on the base hf:other/base 2") as fault:
        promote_manually(world.workspace, strange, "I like it")
    assert "set base.model: hf:other/base and base.revision: 2" in str(fault.value)
    assert world.aliases()[0] == first, "nothing has moved"
    needs_none = make(world, tmp_path, "linear", base=other)
    assert promote_manually(world.workspace, needs_none, "it needs no base").system == "linear"


def test_a_manual_promotion_that_the_gateway_refuses_does_not_serve(
    releases: Open, gateway: Any, tmp_path: Path
) -> None:
    world = releases(gateway.url)
    gateway.task = world.task
    first, second = make(world, tmp_path), make(world, tmp_path)
    promote_manually(world.workspace, first, "the first")
    gateway.refuses.add(second)
    said = perpetune(world.workspace.root, "promote", second, "--reason", "I like it")
    assert said.exit_code == 1
    assert f"does not serve version {second}" in said.stderr
    assert (world.aliases()[0], gateway.serving) == (first, first)
    assert not list(decisions_of_later(world, second))


def test_an_old_alarm_does_not_undo_a_manual_promotion(releases: Open, tmp_path: Path) -> None:
    world = releases()
    version = make(world, tmp_path)
    rules = world.workspace.params.watch
    alarmed = update_state(new_state([WeightedScore(1.0)] * 200), [WeightedScore(0.0)] * 200, 200, rules)
    assert alarmed.alarmed_by is not None
    registry.tag_version(world.task, version, {DETECTOR: to_text(alarmed)})
    promote_manually(world.workspace, version, "the labels were wrong")
    kept = from_text(world.tags(version)[DETECTOR])
    assert (kept.alarmed_by, kept.alarms, kept.detector.seen) == (None, 0, 0)
    assert (kept.until, kept.labels) == (200, 200), "labels that were judged are not judged again"


def test_a_rollback_without_a_previous_champion_lists_the_versions(
    releases: Open, gateway: Any, tmp_path: Path
) -> None:
    world = releases()
    first, second = make(world, tmp_path), make(world, tmp_path, "prompted")
    promote_manually(world.workspace, first, "the first")
    with pytest.raises(PerpetuneError, match="no previous"):
        roll_back(world.workspace, "why not")
    gateway.task = world.task
    for workspace in (world.workspace, releases(gateway.url).workspace):
        said = perpetune(workspace.root, "rollback")
        assert said.exit_code == 1
        assert "no previous champion" in said.stderr
        assert f"serving: version {first} (champion), tuned, 90.0% (82.0% to 95.0%, n=100), promote" in said.stderr
        assert f"version {second} (challenger), prompted base, 90.0% (82.0% to 95.0%, n=100), reject" in said.stderr
        assert f"`perpetune promote {second} --reason '...'`" in said.stderr


def test_the_status_shows_the_serving_system_and_the_next_step(releases: Open, gateway: Any, tmp_path: Path) -> None:
    world = releases()
    assert read_status(world.workspace).next_steps == ("`perpetune refresh` trains the first version.",)
    version = make(world, tmp_path, "linear")
    found = read_status(world.workspace)
    assert found.versions[0].system == "linear model"
    assert f"`perpetune promote {version} --reason '...'`" in found.next_steps[0]
    said = perpetune(world.workspace.root, "status", "--verbose")
    assert "linear" in said.stdout and f"next: No version serves: `perpetune promote {version}" in said.stdout


def test_a_manual_promotion_emits_an_event(releases: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = releases()
    version = make(world, tmp_path)
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.extend(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """No log lines."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}")
        workspace = releases().workspace
        done = promote_manually(workspace, version, "worth it")
        emit_events(workspace, done, print)
        server.shutdown()
    assert [each["event"] for each in told] == ["perpetune.model.promoted"], "no gateway runs, so nothing was deployed"
    assert told[0]["payload"]["version"] == version

"""A check that lacks an input fails where people see it: the monitor must not look green while it sees nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from rich.console import Console

from perpetune.errors import PerpetuneError
from perpetune.explain.gather import gather
from perpetune.explain.status import read_status
from perpetune.explain.status_screen import show_status
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.watch.check import check
from perpetune.tracking import registry
from perpetune.tracking.runs import artifact, close_run, open_run, tag, tag_error

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


@pytest.fixture
def world(watched: Open) -> Any:
    """A healthy champion, found to be so by a first check."""
    opened = watched()
    version = opened.released(right=0.9)
    opened.traffic(version, 0.9)
    assert opened.checked().decision.outcome == "keep"
    opened.traffic(version, 0.9, batch=1)
    return opened


def artifacts(world: Any) -> Path:
    return Path(world.workspace.root) / "artifacts"


def answers_gone(world: Any) -> None:
    for folder in artifacts(world).glob("*/artifacts/answers"):
        shutil.rmtree(folder)


def answers_cut(world: Any) -> None:
    for file in artifacts(world).glob("*/artifacts/answers/*.jsonl"):
        file.write_text('{"id": "f1", "holdo')


def answers_without_rows(world: Any) -> None:
    for file in artifacts(world).glob("*/artifacts/answers/*.jsonl"):
        file.write_text("")


def reference(world: Any) -> Path:
    return Path(world.workspace.root) / "data" / "reference" / "reference.jsonl"


def reference_gone(world: Any) -> None:
    reference(world).unlink()


def reference_empty(world: Any) -> None:
    reference(world).write_text("")


def reference_cut(world: Any) -> None:
    reference(world).write_text('{"input": "fi')


def log(world: Any) -> Path:
    return Path(world.workspace.root) / "predictions.db"


def log_emptied(world: Any) -> None:
    for file in log(world).parent.glob("predictions.db*"):
        file.unlink()


def log_of_garbage(world: Any) -> None:
    log_emptied(world)
    log(world).write_bytes(b"this is no database " * 500)


@pytest.mark.parametrize(
    "lose",
    [
        answers_gone,
        answers_cut,
        answers_without_rows,
        reference_gone,
        reference_empty,
        reference_cut,
        log_emptied,
        log_of_garbage,
    ],
)
def test_a_blind_check_fails_and_says_so(world: Any, lose: Callable[[Any], None]) -> None:
    lose(world)
    run = open_loop_run(world.workspace, "watch", "manual", "a test", "flow-2")
    with pytest.raises(Exception) as fault:  # noqa: PT011 - which error depends on what is lost
        check(world.workspace, run, "flow-2")
    tag_error(run, fault.value)
    close_run(run, succeeded=False)
    assert str(fault.value)[:200] in world.tags("1")[registry.CHECK_ERROR]
    assert any(event.what == "the newest check failed" for event in gather(world.workspace, "1").events)
    if lose in (log_of_garbage,):
        return  # nor can the status count its rows
    status = read_status(world.workspace)
    assert status.check_failed and "failed, so nothing is known of decay" in str(status.last_check)
    assert str(fault.value).splitlines()[0][:80] in str(status.last_check)
    assert status.next_step == "`perpetune watch`"


@pytest.mark.parametrize("call", ["list_artifacts", "download_artifacts"])
def test_an_mlflow_that_fails_is_not_a_missing_file(world: Any, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MlflowException("the artifact store answers 503")

    monkeypatch.setattr(MlflowClient, call, fail)
    with pytest.raises(PerpetuneError, match="answers 503"):
        world.checked()
    monkeypatch.undo()
    run_id = registry.get(world.task, "1").run_id
    assert artifact(run_id, "answers/nobody.jsonl", Path(world.workspace.root) / "x") is None
    assert artifact(run_id, "answers/challenger.jsonl", Path(world.workspace.root) / "x") is not None


def test_the_next_check_that_sees_clears_the_error(world: Any) -> None:
    kept = reference(world).read_text()
    reference_gone(world)
    with pytest.raises(PerpetuneError, match=r"dvc checkout data/reference"):
        world.checked()
    assert registry.CHECK_ERROR in world.tags("1")
    reference(world).write_text(kept)
    assert world.checked().decision.outcome == "keep"
    assert registry.CHECK_ERROR not in world.tags("1")


def test_a_version_promoted_before_it_was_evaluated_is_not_green(watched: Open) -> None:
    world = watched()
    version = world.make()
    registry.promote(world.task, version)
    world.traffic(version, 0.1)
    with pytest.raises(PerpetuneError, match="its recorded answers to held-out rows are missing"):
        world.checked()


def test_a_simpler_system_is_held_to_its_own_answers(watched: Open) -> None:
    """A refresh records the answers of all systems: those of the tuned challenger are not the linear model's."""
    world = watched()
    version = world.released(right=0.99, champion_right=0.5)
    registry.tag_version(world.task, version, {registry.EVALUATED_AS: "champion"})
    world.traffic(version, 0.5)
    assert world.checked().decision.evidence["decay"]["reference"]["mean"] == 0.5


def test_checks_that_did_not_run_are_counted(world: Any) -> None:
    assert read_status(world.workspace).checks_missed == 0
    client, (run,) = MlflowClient(), _watch_runs(world)
    late = datetime.now(UTC) - timedelta(hours=30)
    client.set_terminated(run, "FINISHED", end_time=int(late.timestamp() * 1000))
    status = read_status(world.workspace)
    assert 28 <= status.checks_missed <= 30
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show_status(status, console)
    assert f"checks missed since: {status.checks_missed} of watch.cron" in console.export_text()


def _watch_runs(world: Any) -> list[str]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(world.task)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`perpetune.kind` = 'watch'")
    return [run.info.run_id for run in found]


def test_a_check_that_was_killed_is_not_the_last_verdict(world: Any) -> None:
    run = open_run(world.task, "watch", {"perpetune.kind": "watch"}, {})
    tag(run, {"perpetune.trigger": "schedule"})
    MlflowClient().set_terminated(run.id, "KILLED")
    status = read_status(world.workspace)
    assert status.check_failed and "it was killed" in str(status.last_check)

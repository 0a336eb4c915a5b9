from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from perpetune.audit.store import entries
from perpetune.params import RetentionParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import Drawn, request_labels
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction
from perpetune.retention.prune import prune
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, artifact_names, close_run, log_text, open_run, tag
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow

NOTHING = {"report_days": None, "check_days": None, "refresh_days": None, "release_days": None, "data_days": None}
LATER = datetime.now(UTC) + timedelta(days=1000)


def keeping(workspace: Workspace, **days: float | None) -> Workspace:
    """With these settings of retention, and for ever without one."""
    wanted = RetentionParams.model_validate(NOTHING | {"log_megabytes": None} | days)
    return replace(workspace, params=workspace.params.model_copy(update={"retention": wanted}))


def gone(workspace: Workspace, now: datetime = LATER, *, dry_run: bool = False) -> dict[str, tuple[int, int]]:
    """Count and bytes of what was removed, by the first word of its name."""
    found = prune(workspace, now, dry_run=dry_run)
    return {each.name: (each.count, each.bytes) for each in found if each.count}


def refresh_run(outcome: str = "reject", **tags: str) -> Run:
    run = open_run("colours", "refresh", {"perpetune.kind": "refresh", **tags}, {"data.version": "0" * 32})
    tag(run, {"decision": outcome})
    log_text(run, "[]", "answers/challenger.jsonl")
    close_run(run, succeeded=True)
    return run


def version_of(run: Run, **tags: str) -> str:
    client = MlflowClient()
    if not client.search_registered_models("name = 'colours'"):
        client.create_registered_model("colours")
    found = client.create_model_version("colours", f"runs:/{run.id}/adapter", run.id)
    registry.tag_version("colours", str(found.version), tags)
    return str(found.version)


def active_runs() -> set[str]:
    found = MlflowClient().get_experiment_by_name("colours")
    assert found is not None
    return {each.info.run_id for each in MlflowClient().search_runs([found.experiment_id])}


def test_only_what_is_old_and_needed_by_nobody_goes(
    tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace]
) -> None:
    workspace, runs = keeping(new_loop_workspace(tmp_path), report_days=30, release_days=30), {}
    for outcome in ("no decay", "retrain"):
        run = open_run("colours", "check", {"perpetune.kind": "watch"}, {})
        tag(run, {"decision": outcome})
        log_text(run, "<html>", "drift.html")
        log_text(run, "{}", "decision.json")
        close_run(run, succeeded=True)
        runs[outcome] = run.id
    old, new = (workspace.home / f"releases/colours/{version}-ab" for version in (1, 2))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "adapter").write_text("weights")
    later = datetime.now(UTC) + timedelta(days=40)
    os.utime(new, (later.timestamp(), later.timestamp()))

    assert gone(keeping(workspace, report_days=60, release_days=60), later) == {}
    assert gone(keeping(workspace), later) == {}, "null keeps for ever"
    expected = {"drift reports of checks": (1, 6), "downloads of versions that do not serve": (1, 7)}
    for dry_run in (True, False):
        assert gone(workspace, later, dry_run=dry_run) == expected
        assert old.exists() == dry_run and new.exists()
        assert artifact_names(runs["retrain"], "") == ["decision.json", "drift.html"]
        assert ("drift.html" in artifact_names(runs["no decay"], "")) == dry_run
        assert "decision.json" in artifact_names(runs["no decay"], "")
    assert gone(workspace, later, dry_run=True) == {}


def test_runs_of_old_checks_go_but_not_the_newest_and_not_what_found_decay(
    tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace]
) -> None:
    workspace, runs = keeping(new_loop_workspace(tmp_path), check_days=365, report_days=30), []
    for outcome in ("no decay", "retrain", "roll back", "no decay", "no decay"):
        run = open_run("colours", "check", {"perpetune.kind": "watch"}, {})
        tag(run, {"decision": outcome})
        log_text(run, "<html>", "drift.html")
        close_run(run, succeeded=True)
        runs.append(run.id)
    running = open_run("colours", "check", {"perpetune.kind": "watch"}, {})
    assert gone(workspace) == {"drift reports of checks": (1, 6), "runs of checks": (2, 12)}
    assert active_runs() == {runs[1], runs[2], runs[4], running.id}
    assert gone(workspace) == {}


def test_a_refresh_stays_if_anything_names_its_run_or_its_version(
    tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace], prediction: Callable[..., Prediction]
) -> None:
    workspace = keeping(new_loop_workspace(tmp_path), refresh_days=730)
    named = {name: refresh_run() for name in ("rejected", "failed", "refused", "rolled back", "released", "waiting")}
    named |= {name: refresh_run() for name in ("asked", "evaluator", "on trial", "champion")}
    later = refresh_run()
    versions = {
        name: version_of(named[name], **tags)
        for name, tags in {
            "rejected": {"decision": "reject"},
            "refused": {"release.state": "refused"},
            "rolled back": {"release.state": "rolled back"},
            "released": {"release.state": "released"},
            "waiting": {"approval": "waiting"},
            "asked": {},
            "on trial": {"release.state": "canary"},
            "champion": {"release.state": "released", "answers": f"{named['evaluator'].id}/champion"},
        }.items()
    }
    for alias, name in {"champion": "champion", "challenger": "on trial"}.items():
        MlflowClient().set_registered_model_alias("colours", alias, versions[name])
    log = open_log(workspace.settings.prediction_log)
    record_rows(log, [prediction(1, task="colours", version=versions["asked"])])
    request_labels(log, [Drawn("chatcmpl-1", "lot", 0.5)], datetime.now(UTC))
    scratch = workspace.run_folder(named["rejected"].id)

    assert gone(keeping(workspace, refresh_days=1001)) == {}
    before = active_runs()
    assert gone(workspace, dry_run=True) == gone(workspace, dry_run=True)
    assert active_runs() == before and scratch.is_dir() and len(registry.versions("colours")) == 8
    name = "runs of refreshes whose versions never served"
    assert gone(workspace) == {name: (3, 6)}
    stay = {each.id for key, each in named.items() if key not in ("rejected", "failed", "refused")}
    assert active_runs() == stay | {later.id}
    left = {each.version for each in registry.versions("colours")}
    assert left == set(versions.values()) - {versions["rejected"], versions["refused"]}
    assert not scratch.exists()
    assert artifact_names(named["rejected"].id, "") == [], "nothing is left of it in the artifact store"
    [entry] = list(entries(log))
    assert entry.event.details == {name: f"3, version {versions['rejected']}, version {versions['refused']}"}
    assert gone(workspace) == {} and len(list(entries(log))) == 1
    log.dispose()


def test_refreshes_since_the_champion_was_trained_stay_because_the_cooldown_counts_them(
    tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace]
) -> None:
    workspace = keeping(new_loop_workspace(tmp_path), refresh_days=31)
    champion, _, _ = refresh_run(), refresh_run(), refresh_run()
    version = version_of(champion, **{"release.state": "released"})
    MlflowClient().set_registered_model_alias("colours", "champion", version)
    assert gone(workspace) == {}


def test_an_interrupted_deletion_goes_on(tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace]) -> None:
    workspace = keeping(new_loop_workspace(tmp_path), refresh_days=31, check_days=31)
    old, _, _ = refresh_run(), refresh_run(), version_of(refresh_run())
    version = version_of(old, decision="reject")
    registry.delete_version_alone("colours", version)  # killed here, and in the middle of the artifacts
    log_text(old, "{}", "decision.json")
    [store] = list((workspace.home / "artifacts").glob(f"{old.id}/artifacts/answers"))
    (store / "challenger.jsonl").unlink()
    assert "runs of refreshes whose versions never served" in gone(workspace)
    assert old.id not in active_runs()
    assert gone(workspace) == {}


def test_old_rows_of_the_log_go_by_its_own_setting(
    tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace], prediction: Callable[..., Prediction]
) -> None:
    laid_out = keeping(new_loop_workspace(tmp_path))
    params = laid_out.params.model_copy(update={"log": laid_out.params.log.model_copy(update={"retention_days": 900})})
    workspace = replace(laid_out, params=params)
    log = open_log(workspace.settings.prediction_log)
    rows = [prediction(number, task="colours", time=LATER - timedelta(days=899)) for number in (1, 2)]
    older = [prediction(number, task="colours", time=LATER - timedelta(days=901)) for number in range(3, 700)]
    record_rows(log, [*rows, *older])
    log.dispose()
    assert gone(laid_out) == {}
    assert gone(workspace, dry_run=True) == gone(workspace) == {"rows of the prediction log": (697, 0)}
    assert gone(workspace) == {}


def test_a_large_log_file_is_compressed_and_its_service_writes_on(
    tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace]
) -> None:
    workspace = keeping(new_loop_workspace(tmp_path), log_megabytes=0.001)
    logs = workspace.home / "logs"
    logs.mkdir(parents=True)
    (logs / "small.log").write_text("a line\n")
    with (logs / "gateway.log").open("ab", buffering=0) as service:
        for number in range(2):
            service.write(b"x" * 2000)
            assert gone(workspace) == {"large log files of services": (1, 2000)}, number
            service.write(b"more")
            assert (logs / "gateway.log").read_bytes() == b"more"
            os.truncate(logs / "gateway.log", 0)
            assert gzip.decompress((logs / "gateway.log.gz").read_bytes()) == b"x" * 2000
    assert sorted(path.name for path in logs.iterdir()) == ["gateway.log", "gateway.log.gz", "small.log"]

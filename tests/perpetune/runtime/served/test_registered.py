"""`perpetune serve add`, `list` and `remove`: which workspaces fit, and how the gateway opens them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import perpetune
from workspaces import write_params

from perpetune.errors import PerpetuneError
from perpetune.runtime.served.members import member_workers
from perpetune.runtime.served.registered import FILE, register, registered, served_workspaces, unregister
from perpetune.runtime.stack import Ports, environment
from perpetune.settings import Settings
from perpetune.workspace import Workspace, open_workspace

VARIABLES = ("PERPETUNE_HOME", "PERPETUNE_DATABASE_URL", "MLFLOW_TRACKING_URI", "PERPETUNE_WORKSPACE_ID")


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def workspace(folder: Path, task: str, **sections: Mapping[str, object]) -> Path:
    folder.mkdir(parents=True)
    write_params(folder, task={"name": task}, **sections)
    return folder


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return workspace(tmp_path / "reviews", "reviews")


def test_what_is_added_is_listed_and_removed(main: Path) -> None:
    for name in ("intents", "tickets"):
        workspace(main.parent / name, name)
    added = perpetune(main, "serve", "add", "../intents")
    assert added.exit_code == 0, added.output
    assert "intents of " in added.output and "beside reviews" in added.output
    assert perpetune(main, "serve", "add", str(main.parent / "tickets"), "--json").exit_code == 0
    listed = json.loads(perpetune(main, "serve", "list", "--json").stdout)
    assert listed == [
        {"task": "reviews", "folder": "."},
        {"task": "intents", "folder": "../intents"},
        {"task": "tickets", "folder": "../tickets"},
    ]
    assert "../tickets" in perpetune(main, "serve", "list").output
    assert perpetune(main, "serve", "remove", "intents").exit_code == 0
    assert [each.task for each in registered(open_workspace(main))] == ["tickets"]
    again = perpetune(main, "serve", "remove", "intents")
    assert again.exit_code == 1 and "no workspace with the task 'intents'" in again.output
    assert (main.parent / "intents" / "params.yaml").is_file(), "it stays as it is"


@pytest.mark.parametrize(
    ("task", "sections", "sentence"),
    [
        ("intents", {"base": {"model": "path:other", "revision": None}}, "base.model is path:other, and "),
        ("intents", {"base": {"revision": "0.1.9"}}, "base.revision is 0.1.9, and "),
        (
            "intents",
            {"base": {"chat_template_kwargs": {"enable_thinking": True}}},
            "base.chat_template_kwargs is {'enable_thinking': True}, and {} in reviews",
        ),
        ("intents", {"serve": {"engine": "vllm"}}, "serve.engine is vllm, and transformers in reviews"),
        ("intents", {"train": {"precision": "fp32"}}, "train.precision is fp32, and "),
        ("reviews", {}, "a task called reviews is served here already"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    main: Path, task: str, sections: dict[str, dict[str, object]], sentence: str
) -> None:
    other = workspace(main.parent / "other", task, **sections)
    with pytest.raises(PerpetuneError) as caught:
        register(open_workspace(main), other)
    assert sentence in caught.value.what and "\n" not in caught.value.what
    assert str(other / "params.yaml") in str(caught.value.where) and caught.value.do
    assert registered(open_workspace(main)) == ()


def test_a_name_that_another_registered_one_has_is_taken(main: Path) -> None:
    here = open_workspace(main)
    register(here, workspace(main.parent / "intents", "intents"))
    with pytest.raises(PerpetuneError, match="a task called intents is served here already"):
        register(here, workspace(main.parent / "more-intents", "intents"))
    for twice in (main.parent / "intents", main):
        with pytest.raises(PerpetuneError, match="is served here already"):
            register(here, twice)
    with pytest.raises(PerpetuneError, match=r"no params\.yaml"):
        register(here, main.parent)


def test_the_same_name_of_a_folder_may_be_another_base(main: Path) -> None:
    """`path:base` is the folder beside each params.yaml."""
    local = {"model": "path:base", "revision": None}
    write_params(main, task={"name": "reviews"}, base=local)
    other = workspace(main.parent / "intents", "intents", base=local)
    with pytest.raises(PerpetuneError, match=r"the folder of base\.model is .*/intents/base, and .*/reviews/base"):
        register(open_workspace(main), other)
    beside = {"model": "path:../base", "revision": None}
    for folder, task in ((main, "reviews"), (other, "intents")):
        write_params(folder, task={"name": task}, base=beside)
    assert register(open_workspace(main), other).params.task.name == "intents"


def test_what_has_changed_since_is_said_at_the_start(main: Path) -> None:
    other = workspace(main.parent / "intents", "intents")
    register(open_workspace(main), other)
    write_params(other, task={"name": "intents"}, serve={"engine": "vllm"})
    with pytest.raises(PerpetuneError, match=r"serve\.engine is vllm"):
        served_workspaces(open_workspace(main))
    write_params(other, task={"name": "renamed"})
    with pytest.raises(PerpetuneError, match="now called renamed"):
        served_workspaces(open_workspace(main))
    shutil.rmtree(other)
    with pytest.raises(PerpetuneError, match=r"no params\.yaml"):
        served_workspaces(open_workspace(main))
    unregister(open_workspace(main), "intents")
    assert served_workspaces(open_workspace(main)) == ()
    (main / ".perpetune" / FILE).write_text('{"a": 1}')
    with pytest.raises(PerpetuneError, match="no list of workspaces"):
        registered(open_workspace(main))


def test_both_may_be_moved_together(main: Path) -> None:
    register(open_workspace(main), workspace(main.parent / "intents", "intents"))
    moved = main.parent / "elsewhere"
    moved.mkdir()
    for name in ("reviews", "intents"):
        (main.parent / name).rename(moved / name)
    [other] = served_workspaces(open_workspace(moved / "reviews"))
    assert other.root == (moved / "intents").resolve()


def member(main: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Workspace:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    [found] = served_workspaces(open_workspace(main))
    return found


def test_each_has_a_home_and_a_log_of_its_own_and_a_named_database_is_that_of_all(
    main: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = workspace(main.parent / "intents", "intents").resolve()
    register(open_workspace(main), other)
    home = other / ".perpetune"
    under_up = environment(open_workspace(main), Ports())
    for variables in ({}, {name: under_up[name] for name in VARIABLES if name in under_up}):
        found = member(main, monkeypatch, **variables)
        assert (found.home, found.settings.prediction_log) == (home, f"sqlite:///{home / 'predictions.db'}")
    assert found.settings.workspace_id == under_up["PERPETUNE_WORKSPACE_ID"], "that of the stack"
    assert found.settings.mlflow_tracking_uri == under_up["MLFLOW_TRACKING_URI"]
    named = "postgresql://db/perpetune"
    assert member(main, monkeypatch, PERPETUNE_DATABASE_URL=named).settings.prediction_log == named
    absolute = main.parent / "state"
    monkeypatch.setenv("PERPETUNE_HOME", str(absolute))
    absolute.mkdir()
    shutil.copy(main / ".perpetune" / FILE, absolute)
    found = member(main, monkeypatch)
    assert found.home == absolute / "tasks" / "intents", "not that of reviews"


def test_a_worker_of_each_knows_its_home_and_its_log(main: Path) -> None:
    other = workspace(main.parent / "intents", "intents").resolve()
    register(open_workspace(main), other)
    [worker] = member_workers(served_workspaces(open_workspace(main)))
    assert (worker.name, worker.folder) == ("worker-intents", other)
    assert f"PERPETUNE_DATABASE_URL=sqlite:///{other / '.perpetune' / 'predictions.db'}" in worker.command
    assert f"PERPETUNE_HOME={other / '.perpetune'}" in worker.command
    named = Settings(database_url="postgresql://me:SECRET@db/log")
    [worker] = member_workers(served_workspaces(Workspace(main, open_workspace(main).params, named)))
    assert "SECRET" not in " ".join(worker.command), "it is inherited"


def test_several_workers_are_refused_when_a_task_is_added_and_not_only_when_it_is_served(tmp_path: Path) -> None:
    main = workspace(tmp_path / "reviews", "reviews", serve={"engine": "vllm", "workers": 2})
    workspace(tmp_path / "intents", "intents", serve={"engine": "vllm"})
    added = perpetune(main, "serve", "add", "../intents")
    assert added.exit_code == 1, added.output
    assert "several tasks are served by one worker" in added.output and "serve.workers" in added.output
    assert not registered(open_workspace(main))

"""Moves of the aliases with the real MLflow on a SQLite store, killed at each of their writes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kills import killed_at
from mlflow.tracking import MlflowClient

from perpetune.errors import ChampionChanged, NoPrevious
from perpetune.tracking import registry
from perpetune.tracking.alias_moves import MOVE, Change, complete_move, move
from perpetune.tracking.runs import connect

pytestmark = pytest.mark.slow

numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> None:
    connect(new_mlflow_store(tmp_path_factory.mktemp("moves")))


def new_task() -> str:
    """A task whose version 2 is champion, 1 previous and 3 the challenger."""
    client, task = MlflowClient(), f"task-{next(numbers)}"
    client.create_registered_model(task)
    for _ in range(4):
        client.create_model_version(task, "nowhere")
    for alias, version in (("previous", "1"), ("champion", "2"), ("challenger", "3")):
        client.set_registered_model_alias(task, alias, version)
    return task


def raw(task: str) -> tuple[str | None, ...]:
    """What MLflow itself has for champion, previous and challenger."""
    found = {alias: str(version) for alias, version in MlflowClient().get_registered_model(task).aliases.items()}
    return tuple(found.get(alias) for alias in ("champion", "previous", "challenger"))


def seen(task: str) -> tuple[str | None, ...]:
    """What readers of ours see, before anything is repaired."""
    found = [registry.find(task, alias) for alias in ("champion", "previous", "challenger")]
    return tuple(version.version if version else None for version in found)


BEFORE = ("2", "1", "3")
MOVES: dict[str, tuple[Callable[[str], object], tuple[str | None, ...], dict[str, str]]] = {
    "promote": (lambda task: registry.promote(task, "3", "2"), ("3", "2", None), {"3": "released"}),
    "promote another": (lambda task: registry.promote(task, "4"), ("4", "2", "3"), {"4": "released"}),
    "roll back": (registry.roll_back, ("1", None, "3"), {"2": "rolled back", "1": "released"}),
    "refuse the champion": (lambda task: registry.refuse(task, "2", "1", "slow"), ("1", None, "3"), {"2": "refused"}),
    "refuse the challenger": (lambda task: registry.refuse(task, "3", "2", "slow"), ("2", "1", None), {"3": "refused"}),
    "restore": (lambda task: registry.restore(task, "1", None), ("1", None, "3"), {}),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_move_that_is_killed_at_any_write_is_made_or_not_made(name: str) -> None:
    make, after, states = MOVES[name]
    for number in itertools.count():
        task = new_task()
        with killed_at(number) as made:
            make(task)
        whole = "delete_registered_model_tag" in made
        intended = "set_registered_model_tag" in made
        expected = after if intended else BEFORE
        assert seen(task) == expected, f"killed after {made}"
        assert complete_move(task) is (intended and not whole)
        assert raw(task) == expected, f"repaired after {made}"
        assert MOVE not in MlflowClient().get_registered_model(task).tags
        if intended:
            tags = {version: registry.get(task, version).tags.get("release.state") for version in states}
            assert tags == states
        assert complete_move(task) is False
        if whole:
            assert number >= 3, "the intent, an alias and the end of the intent at least"
            return


def test_a_gateway_completes_what_it_finds() -> None:
    task = new_task()
    with killed_at(2):
        registry.promote(task, "3")
    assert raw(task) == BEFORE
    wanted = registry.wanted(task)
    assert (wanted.champion, wanted.previous, wanted.trial) == ("3", "2", None)
    assert raw(task) == ("3", "2", None)


def test_the_next_move_completes_the_one_before_it() -> None:
    task = new_task()
    with killed_at(3):
        registry.promote(task, "3")
    assert registry.roll_back(task) == ("3", "2")
    assert raw(task) == ("2", None, None)
    with pytest.raises(NoPrevious):
        registry.roll_back(task)


def test_a_move_is_dropped_if_somebody_has_moved_an_alias_since() -> None:
    task = new_task()
    with killed_at(1):
        registry.promote(task, "3")
    MlflowClient().set_registered_model_alias(task, "champion", "4")  # by hand, in MLflow's own page
    assert seen(task) == ("4", "1", "3")
    assert complete_move(task) is False
    assert raw(task) == ("4", "1", "3")
    assert MOVE not in MlflowClient().get_registered_model(task).tags


def test_a_move_to_a_version_that_was_deleted_since_is_dropped() -> None:
    task = new_task()
    with killed_at(1):
        registry.promote(task, "4")
    MlflowClient().delete_model_version(task, "4")
    complete_move(task)
    assert MOVE not in MlflowClient().get_registered_model(task).tags
    assert raw(task)[0] == "2"


def test_a_version_replaces_only_the_champion_that_it_was_compared_with() -> None:
    task = new_task()
    registry.promote(task, "4")
    with pytest.raises(ChampionChanged, match=r"version 3 .* compared with version 2, and meanwhile version 4 serves"):
        registry.promote(task, "3", "2")
    with pytest.raises(ChampionChanged, match="compared with no version"):
        registry.promote(task, "3", None)
    assert raw(task) == ("4", "2", "3")
    assert registry.promote(task, "4", "2") == "4", "it may be repeated"


def test_promotions_at_the_same_time_leave_a_way_back() -> None:
    """Each of them is made as a whole, in some order."""
    task = new_task()
    with ThreadPoolExecutor(4) as processes:
        replaced = list(processes.map(lambda version: registry.promote(task, version), ("1", "3", "4")))
    champion, previous, _ = raw(task)
    assert "2" in replaced and champion in ("1", "3", "4") and previous in replaced and previous != champion
    assert complete_move(task) is False


def test_a_plan_may_change_nothing() -> None:
    task = new_task()
    assert move(task, lambda _: None) == {"champion": "2", "previous": "1", "challenger": "3"}
    move(task, lambda aliases: Change({"challenger": aliases["previous"]}))
    assert raw(task) == ("2", "1", "1")


def test_a_trial_that_is_killed_while_it_begins_has_begun_or_not() -> None:
    for number in range(4):
        task = new_task()
        with killed_at(number):
            registry.begin_trial(task, "4", "canary", 0.1)
        trial = registry.wanted(task).trial
        assert trial is None or (trial.version, trial.traffic_ratio) == ("4", 0.1)
        assert registry.STATE not in registry.get(task, "4").tags or trial is not None

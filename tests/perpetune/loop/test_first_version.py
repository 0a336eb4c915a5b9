"""The first version on the real registry: made once, with the labels and examples that are known; then the watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from perpetune.curation.running.layout import INBOX, SPLITS
from perpetune.gateway.releases.first_release import BootstrappingSource
from perpetune.generation.answer import PromptRejected
from perpetune.loop.first_version import MAX_LABEL_TOKENS, first_version_card, make_first_version
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.watch.check import check
from perpetune.model.release import DesiredReleases, ServedBase
from perpetune.params import load_params
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import open_requests
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Example, Feedback, Message, Prediction, write_jsonl
from perpetune.testing.fake_registry import FakeSource
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, open_run, read_run
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


BASE = ServedBase(digest="abc", tokens=words, context=2000)


def rows(count: int, labels: Sequence[str] = ("bad", "good"), **more: str) -> list[Example]:
    return [
        Example(
            input=f"it is {number}",
            output=labels[number % len(labels)],
            id=f"r{number}",
            group=f"r{number}",
            **{"source": "mine", **more},
        )
        for number in range(count)
    ]


@pytest.fixture
def workspace(releases: Open) -> Callable[..., Workspace]:
    """Open the workspace with other settings; its task has no version."""

    def begin(**sections: dict[str, object]) -> Workspace:
        opened = releases(refresh={"cooldown_minutes": 60}).workspace
        path = opened.root / "params.yaml"
        settings = yaml.safe_load(path.read_text())
        for section, values in {"fetch": {"sources": ["inbox", "traffic"]}, **sections}.items():
            settings[section] |= values
        path.write_text(yaml.safe_dump(settings))
        return Workspace(opened.root, load_params(path), opened.settings)

    return begin


def ingested(workspace: Workspace, examples: Sequence[Example]) -> Workspace:
    write_jsonl(workspace.root / INBOX / "mine.jsonl", examples)
    return workspace


def curated(workspace: Workspace, examples: Sequence[Example]) -> Workspace:
    write_jsonl(workspace.root / SPLITS / "train.jsonl", examples)
    return workspace


def test_labels_come_from_the_task_the_training_split_or_the_sources(workspace: Any) -> None:
    assert first_version_card(workspace(), BASE).labels is None, "nothing is known yet"
    known = ingested(workspace(), [*rows(20), *rows(1, ["once"])])
    assert first_version_card(known, BASE).labels == ("bad", "good"), "a label seen once is set aside, as curation does"
    assert first_version_card(curated(known, rows(4, ["no", "yes"])), BASE).labels == ("no", "yes")
    named = curated(workspace(task={"labels": ["x", "y", "z"]}), rows(4))
    assert first_version_card(named, BASE).labels == ("x", "y", "z")
    assert first_version_card(curated(workspace(task={"kind": "generation"}), rows(4)), BASE).labels is None


def test_where_labels_are_not_known_little_is_written(workspace: Any) -> None:
    assert first_version_card(workspace(), BASE).max_new_tokens == MAX_LABEL_TOKENS
    assert first_version_card(workspace(task={"kind": "generation"}), BASE).max_new_tokens == 128
    assert first_version_card(workspace(task={"labels": ["x", "y"]}), BASE).max_new_tokens == 128


def test_a_template_that_rejects_earlier_turns_gets_no_examples(workspace: Any) -> None:
    def only_one_turn(messages: Sequence[Message]) -> int:
        if len(messages) > 2:
            raise PromptRejected("only one turn")
        return words(messages)

    known = ingested(workspace(evaluate={"few_shot_examples": 4}), rows(40))
    strict = ServedBase(digest="abc", tokens=only_one_turn, context=2000)
    assert first_version_card(known, strict).shots == ()


def test_a_first_version_keeps_its_day(workspace: Any) -> None:
    card = first_version_card(workspace(), BASE)
    assert card.prompt_date is not None and abs(card.prompt_date - datetime.now(UTC).date()) <= timedelta(days=1)


def test_examples_are_shown_as_far_as_they_fit_and_none_of_a_holdout(workspace: Any) -> None:
    known = ingested(workspace(evaluate={"few_shot_examples": 4}), rows(40))
    card = first_version_card(known, BASE)
    assert [message.role for message in card.shots] == ["user", "assistant"] * 4
    assert sorted(message.content for message in card.shots[1::2]) == ["bad", "bad", "good", "good"]
    asked = words([Message(role="user", content=f"{card.instruction} it is 39")])
    narrow = ServedBase(digest="abc", tokens=words, context=asked + words(card.shots[:2]) + card.max_new_tokens)
    assert len(first_version_card(known, narrow).shots) == 2, (
        "the instruction, the longest row and its answer need their room"
    )
    long = [row.model_copy(update={"input": row.input + " so" * 600}) for row in rows(40)]
    assert len(first_version_card(ingested(known, long), BASE).shots) == 2, "no more than is read soon"
    shown = {message.content for message in first_version_card(ingested(known, rows(40)), BASE).shots[::2]}
    train = curated(known, [row for row in rows(40) if row.input in shown])
    assert {message.content for message in first_version_card(train, BASE).shots[::2]} == shown


def test_the_first_version_is_made_once_and_serves(workspace: Any) -> None:
    opened = ingested(workspace(), rows(20))
    task = opened.params.task.name
    with ThreadPoolExecutor(3) as gateways:
        made = set(gateways.map(lambda _: make_first_version(opened, BASE), range(3)))
    assert len(made) == 1
    assert make_first_version(opened, BASE) in made
    (only,) = registry.versions(task)
    assert registry.wanted(task) == DesiredReleases(only.version)
    assert registry.find(task, "challenger") is None
    assert (only.tags["decision"], only.tags["decision.reason"]) == (
        "promote",
        "prompted base: the first version, not tuned",
    )
    assert MlflowClient().get_model_version(task, only.version).description == only.tags["decision.reason"]
    run = read_run(only.run_id)
    assert (run.tags["perpetune.kind"], run.params["few_shot_examples"]) == ("first", "8")
    release = registry.fetch_release(task, only.version, opened.root / "cache")
    assert (release.system, release.labels, len(release.shots)) == ("prompted", ("bad", "good"), 16)
    asked = release.conversation((Message(role="user", content="well?"),))
    assert [message.role for message in asked] == ["system", *["user", "assistant"] * 8, "user"]


def test_a_remote_model_can_be_the_first_version(workspace: Any) -> None:
    larger = {"url": "http://127.0.0.1:9/v1", "model": "large"}
    opened = ingested(workspace(serve={"initial_model": larger}), rows(20))
    version = make_first_version(opened, BASE)
    release = registry.fetch_release(opened.params.task.name, version, opened.root / "cache")
    assert release.system == "remote" and release.remote is not None and release.remote.model_dump() == larger
    assert (release.labels, len(release.shots)) == (("bad", "good"), 16)
    tags = registry.get(opened.params.task.name, version).tags
    assert tags["decision.reason"] == "large: the first version, not tuned"


def test_a_first_version_without_its_alias_becomes_champion_again(workspace: Any) -> None:
    """As if a gateway died between the two."""
    opened = workspace()
    first = make_first_version(opened, BASE)
    MlflowClient().delete_registered_model_alias(opened.params.task.name, "champion")
    assert make_first_version(opened, BASE) == first
    assert len(registry.versions(opened.params.task.name)) == 1
    assert registry.wanted(opened.params.task.name).champion == first


def test_a_gateway_makes_one_only_while_there_is_no_champion() -> None:
    source, made = FakeSource(), []

    def make() -> None:
        made.append(1)
        source.champion_version = "1"

    following = BootstrappingSource(source, make)
    source.down = True
    with pytest.raises(Exception, match="does not answer"):
        following.wanted()
    source.down = False
    assert following.wanted().champion == following.wanted().champion == "1"
    assert made == [1]


def test_a_gateway_that_could_not_make_one_waits_before_it_tries_again() -> None:
    tries = []

    def fail() -> None:
        tries.append(1)
        raise OSError("no room")

    following = BootstrappingSource(FakeSource(), fail)
    with pytest.raises(OSError, match="no room"):
        following.wanted()
    assert following.wanted() == DesiredReleases(None)
    assert tries == [1]


def answered(workspace: Workspace, version: str, count: int, labelled: int, batch: str = "a") -> None:
    log, now = open_log(workspace.settings.prediction_log), datetime.now(UTC)
    rows = [
        Prediction(
            id=f"{batch}{number}",
            time=now,
            task=workspace.params.task.name,
            version=version,
            messages=(Message(role="user", content=f"is it {number}?"),),
            input=f"is it {number}?",
            output="good",
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=10,
            confidence=0.5,
        )
        for number in range(count)
    ]
    record_rows(log, rows)
    for row in rows[:labelled]:
        add_feedback(log, Feedback(request_id=row.id, time=now, label="bad"))
    log.dispose()


def checked(workspace: Workspace) -> Any:
    run = open_loop_run(workspace, "watch", "manual", "a test", "flow-run")
    check_result = check(workspace, run, "flow-run")
    close_run(run, succeeded=True)
    return check_result


def refreshed(workspace: Workspace, trigger: str = "decay") -> None:
    task = workspace.params.task.name
    run = open_run(task, "refresh", {"perpetune.kind": "refresh", "perpetune.trigger": trigger}, {})
    close_run(run, succeeded=True)


def test_checks_request_labels_until_there_are_enough_for_a_first_refresh(workspace: Any) -> None:
    opened = workspace(refresh={"first_labels": 70, "cooldown_minutes": 0})
    version = make_first_version(opened, BASE)
    assert checked(opened) is None, "no traffic, no labels"
    answered(opened, version, 80, labelled=0)
    check_result = checked(opened)
    assert (check_result.decision.outcome, check_result.asked, check_result.page) == ("ask for labels", 50, None)
    assert (check_result.decision.kind, check_result.decision.ids.champion_version) == ("retraining", version)
    log = open_log(opened.settings.prediction_log)
    assert {each.why for each in open_requests(log, opened.params.task.name)} == {"lot"}
    log.dispose()
    answered(opened, version, 70, labelled=70, batch="b")
    decision = checked(opened).decision
    assert (decision.outcome, decision.reason) == (
        "retrain",
        "70 labelled requests are enough for a first tuned version.",
    )
    refreshed(opened)
    assert checked(opened).decision.outcome == "ask for labels", "a refresh has used them"
    answered(opened, version, 70, labelled=70, batch="c")
    assert checked(opened).decision.outcome == "retrain"


def test_a_first_refresh_waits_for_the_cooldown_of_an_unsuccessful_one(workspace: Any) -> None:
    opened = workspace(refresh={"first_labels": 10})
    version = make_first_version(opened, BASE)
    refreshed(opened)
    answered(opened, version, 10, labelled=10)
    decision = checked(opened).decision
    assert decision.outcome == "cooling down"
    assert "the cooldown is 120 minutes" in decision.reason


def test_ingested_rows_count_before_the_first_request(workspace: Any) -> None:
    opened = ingested(workspace(refresh={"first_labels": 30}), rows(30))
    make_first_version(opened, BASE)
    decision = checked(opened).decision
    assert (decision.outcome, decision.evidence["rows"]) == ("retrain", 30)
    task = opened.params.task.name
    running = open_run(task, "refresh", {"perpetune.kind": "refresh"}, {})
    assert checked(opened) is None, "the refresh that runs uses them"
    close_run(running, succeeded=False)
    assert checked(opened).decision.outcome == "cooling down", "one that failed has not, and is waited for"

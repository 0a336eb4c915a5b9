"""Labels that cannot be right neither alarm the monitor nor found a class, on the real registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from predictions import answered

from perpetune.curation.running.layout import INBOX, SPLITS, TRAFFIC
from perpetune.loop.curate import export_labelled_traffic, production_labels
from perpetune.loop.first_version import make_first_version
from perpetune.loop.label_rule import label_rule, label_rule_at_hand, label_rule_of_sources
from perpetune.model.release import ServedBase
from perpetune.params import load_params
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Example, Feedback, read_jsonl, write_jsonl
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow

Open = Callable[..., Any]
BASE = ServedBase(digest="abc", tokens=lambda messages: 1, context=2000)
KNOWN = ("bad", "good")


def rows(labels: Sequence[str], source: str = "mine", count: int = 20) -> list[Example]:
    names = [f"{source}{number}" for number in range(count)]
    return [
        Example(input=f"it is {name}", output=labels[number % len(labels)], id=name, group=name, source=source)
        for number, name in enumerate(names)
    ]


@pytest.fixture
def workspace(releases: Open) -> Callable[..., Workspace]:
    """Open the workspace with these settings of `task` and these ingested rows."""

    def begin(examples: Sequence[Example] = (), **task: object) -> Workspace:
        opened = releases().workspace
        path = opened.root / "params.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["fetch"] = {"sources": ["inbox", "traffic"]}
        settings["task"] |= task
        path.write_text(yaml.safe_dump(settings))
        write_jsonl(opened.root / INBOX / "mine.jsonl", examples)
        return Workspace(opened.root, load_params(path), opened.settings)

    return begin


def labelled(workspace: Workspace, labels: Sequence[str]) -> None:
    """Answers in the log, each with one of these labels."""
    log, now = open_log(workspace.settings.prediction_log), datetime.now(UTC)
    for number, label in enumerate(labels):
        row = answered(f"r{number}", f"question {number}", "good", task=workspace.params.task.name, time=now)
        record_rows(log, [row])
        add_feedback(log, Feedback(request_id=row.id, time=now, label=label))
    log.dispose()


def exported(workspace: Workspace) -> list[str]:
    export_labelled_traffic(workspace)
    return [row.output for row in read_jsonl(workspace.root / TRAFFIC, Example)]


def test_labels_are_those_of_the_champion_and_of_curated_rows(workspace: Callable[..., Workspace]) -> None:
    opened = workspace(rows(KNOWN))
    make_first_version(opened, BASE)
    write_jsonl(opened.root / SPLITS / "train.jsonl", [*rows(KNOWN), *rows(["thumbs_up"], "traffic")])
    labelled(opened, ["good", "thumbs_up", "Bad ", "thumbs_up", " "])
    assert exported(opened) == ["good", "bad"]
    assert production_labels(opened) == 2
    write_jsonl(opened.root / INBOX / "new.jsonl", rows(["mixed"], "new"))
    assert label_rule(opened).fault("mixed"), "it is in no split yet"
    assert label_rule_of_sources(opened).fault("mixed") is None
    assert label_rule_at_hand(opened) == label_rule(opened)


def test_labels_of_params_and_new_ones_where_they_are_welcome(workspace: Callable[..., Workspace]) -> None:
    said = ["good", "delivery", " "]
    named = workspace(rows(KNOWN), labels=["good", "refund"])
    labelled(named, said)
    assert exported(named) == ["good"]
    welcome = workspace(rows(KNOWN), labels=None, new_labels=True)
    assert exported(welcome) == ["good", "delivery"]


def test_a_champion_that_writes_freely_knows_no_labels(workspace: Callable[..., Workspace]) -> None:
    opened = workspace()
    make_first_version(opened, BASE)
    labelled(opened, ["good", "delivery", " "])
    assert exported(opened) == ["good", "delivery"]


def test_mistaken_labels_do_not_alarm_for_a_healthy_champion(watched: Open) -> None:
    world = watched()
    settings = world.workspace.params.task.model_copy(update={"labels": KNOWN})
    params = world.workspace.params.model_copy(update={"task": settings})
    world.workspace = Workspace(world.workspace.root, params, world.workspace.settings)
    version = world.released(right=0.9)
    for batch in range(5):
        world.traffic(version, 0.9, batch)
        log, now = open_log(world.workspace.settings.prediction_log), datetime.now(UTC)
        for number in range(0, 80, 5):  # a fifth of the answers: the last word on them is no label
            said = Feedback(request_id=f"{version}-{batch}-{number}", time=now, label="thumbs_up")
            add_feedback(log, said)
        log.dispose()
        decision = world.checked().decision
        assert (decision.outcome, decision.evidence["labelled"]) == ("keep", 80)

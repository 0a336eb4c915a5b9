"""Champion and challenger, a tiny model that was really trained, answer stored traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.loop.assess.assess import assess
from perpetune.loop.curate import CuratedData
from perpetune.loop.decide import promotion_evidence, register
from perpetune.loop.disagreements.answer import compare_on_traffic, differ, wants_traffic
from perpetune.loop.disagreements.decide import ask_for_disagreements
from perpetune.loop.training.fine_tune import fine_tune
from perpetune.params import BaseParams, TrainParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import open_requests
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Example, Message, Prediction, write_jsonl
from perpetune.tracking import registry
from perpetune.tracking.runs import connect, open_run
from perpetune.workspace import open_workspace

pytestmark = pytest.mark.slow

THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}


def rows(split: str, words: str) -> list[Example]:
    return [
        Example(input=words.format(thing), output=colour, id=f"{split}-{thing}", group=f"{split}-{thing}", source="t")
        for thing, colour in THINGS.items()
    ]


def requests(version: str) -> list[Prediction]:
    """Two hundred differently worded ones, half of them answered by the champion, wrongly."""
    things = [*THINGS, "is", "it", "a", "the"]
    texts = [f"{a} {b} {c}" for a in things for b in things for c in things][:200]
    return [
        Prediction(
            id=f"r{n}",
            time=datetime.now(UTC) - timedelta(hours=n),
            task="colours",
            version=version if n % 2 else "0",
            messages=(Message(role="user", content=text),),
            input=text,
            output="nothing",
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=1,
        )
        for n, text in enumerate(texts)
    ]


def test_stored_traffic_is_answered_by_both_and_disagreements_are_asked_for(
    tmp_path: Path,
    tiny_params: BaseParams,
    train_params: TrainParams,
    new_mlflow_store: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    connect(new_mlflow_store(tmp_path))
    MlflowClient().create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))
    write_params(
        tmp_path,
        base=tiny_params.model_dump(),
        train=train_params.model_dump() | {"epochs": 4},
        task={"name": "colours", "instruction": "which colour"},
        evaluate={"bootstrap_samples": 100, "encoder": None},
    )
    workspace = open_workspace(tmp_path)
    for split, words in {"train": "the {}", "validation": "a {}", "frozen": "is it the {}"}.items():
        write_jsonl(workspace.split(split), rows(split, words))
    write_jsonl(workspace.split("recent"), [])
    run = open_run("colours", "refresh", {}, {})
    trained = fine_tune(workspace, run, lambda _: None)
    version = register(workspace, run, CuratedData("0", {}, 0), trained, "0")
    assert not wants_traffic(workspace, run, assess(workspace, run, trained, version, print)), "there is no champion"
    registry.promote("colours", version)
    assessment = assess(workspace, run, trained, version, print)
    assert wants_traffic(workspace, run, assessment), "six rows of the frozen holdout decide nothing"
    assert not wants_traffic(workspace, run, replace(assessment, balanced=True))

    assert compare_on_traffic(workspace, trained, version, assessment, print) is None, "there is no traffic"
    log = open_log(workspace.settings.prediction_log)
    record_rows(log, requests(version))
    found = compare_on_traffic(workspace, trained, version, assessment, print)
    assert found is not None
    assert (found.recent.rows, found.earlier.rows, found.earlier.held_out) == (100, 100, 6)
    # The champion is the same model: it differs only where its stored answer stands.
    differing = {each.request_id for each in (*found.recent.differing, *found.earlier.differing)}
    assert differing == {f"r{n}" for n in range(200) if n % 2}
    assert {each.champion for each in found.recent.differing} == {"nothing"}
    assert {each.challenger for each in found.recent.differing} <= set(THINGS.values())

    evidence = promotion_evidence(assessment, workspace.params.promote)
    evidence, verdict = ask_for_disagreements(workspace, run, found, evidence)
    assert evidence.traffic is not None and verdict.outcome == "collect more labels"
    (sentence,) = verdict.reasons
    asked = open_requests(log, "colours")
    log.dispose()
    assert f"Label {len(asked)} requests" in sentence and {each.why for each in asked} == {"disagreement"}
    assert {each.request_id for each in asked} <= differing


def test_answers_differ_if_their_scores_may() -> None:
    labels, text = scoring_of("classification", None), scoring_of("generation", None)
    assert differ(labels, "billing", "technical") and not differ(labels, "billing", "billing")
    assert differ(text, "the parcel is late", "it is late") and not differ(text, "The parcel.", "The parcel.")

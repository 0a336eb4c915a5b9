"""What may veto, measured with a tiny model that was really trained, into the real MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.curation.hosted.answer_file import HostedAnswer
from perpetune.curation.hosted.matching import save_answers, stored
from perpetune.curation.running.layout import HOSTED_ANSWERS
from perpetune.errors import PerpetuneError
from perpetune.explain.status import read_status
from perpetune.loop.assess.assess import assess
from perpetune.loop.curate import CuratedData
from perpetune.loop.decide import _register_rival, decide, promotion_evidence, register
from perpetune.loop.first_version import make_first_version
from perpetune.loop.run_context import REPORT
from perpetune.loop.training.fine_tune import Challenger, fine_tune
from perpetune.model.release import ServedBase
from perpetune.params import BaseParams, EconomicsParams, Method, RemoteModel, TrainParams
from perpetune.policy.decision.hosted import hosted_in
from perpetune.policy.promotion.choice import choose
from perpetune.records import Example, Message, write_jsonl
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, artifact, close_run, connect, metrics_of, open_run, read_run, tag
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

THINGS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}


@pytest.fixture
def method() -> Method:
    return "lora"


@pytest.fixture
def workspace(
    tmp_path: Path,
    tiny_params: BaseParams,
    train_params: TrainParams,
    method: Method,
    new_mlflow_store: Callable[[Path], str],
) -> Workspace:
    connect(new_mlflow_store(tmp_path))
    MlflowClient().create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))
    write_params(
        tmp_path,
        base=tiny_params.model_dump(),
        train=train_params.model_dump() | {"method": method, "epochs": 4},
        task={"name": "colours", "instruction": "which colour"},
        evaluate={"bootstrap_samples": 100, "encoder": None},
    )
    workspace = open_workspace(tmp_path)
    splits = {"train": "the {}", "validation": "a {}", "frozen": "is it the {}"}
    for split, words in splits.items():
        write_jsonl(workspace.split(split), rows(split, words))
    write_jsonl(workspace.split("recent"), [])
    return workspace


def rows(split: str, words: str) -> list[Example]:
    return [
        Example(input=words.format(thing), output=colour, id=f"{split}-{thing}", group=thing, source="t")
        for thing, colour in THINGS.items()
    ]


def challenger(workspace: Workspace) -> tuple[Run, Challenger, str]:
    run = open_run("colours", "refresh", {}, {})
    trained = fine_tune(workspace, run, lambda _: None)
    return run, trained, register(workspace, run, CuratedData("0", {}, 0), trained, "0")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_missing_encoder_is_an_error_before_training(workspace: Workspace) -> None:
    gone = BaseParams(model="pypi:nobody", revision="1")
    evaluating = workspace.params.evaluate.model_copy(update={"encoder": gone})
    workspace = replace(workspace, params=workspace.params.model_copy(update={"evaluate": evaluating}))
    run = open_run("colours", "refresh", {}, {})
    with pytest.raises(PerpetuneError, match=r"params\.yaml: evaluate\.encoder\.model: the wheel nobody==1"):
        fine_tune(workspace, run, lambda _: pytest.fail("it trains"))


def test_all_limits_are_measured_and_latency_against_the_champion(workspace: Workspace) -> None:
    run, trained, version = challenger(workspace)
    against_base = assess(workspace, run, trained, version, print)
    assert set(against_base.limits) == {"leakage", "near leakage", "forgetting"}, "nothing serves yet"
    forgotten = against_base.limits["forgetting"]
    assert forgotten.value != 0 and forgotten.interval is not None
    assert forgotten.interval.low <= forgotten.value <= forgotten.interval.high
    assert against_base.limits["leakage"].value == 0
    assert metrics_of(run.id)["forgetting/value"] == pytest.approx(forgotten.value)

    registry.promote("colours", version)
    itself = assess(workspace, run, trained, version, print)
    assert itself.champion == version
    assert itself.limits["forgetting"].value == pytest.approx(0, abs=1e-6), "it is compared with itself"
    latency = itself.limits["latency"]
    assert latency.unit == "times the champion's 95th percentile, 6 rows, repeated"
    assert latency.rows == 6
    assert latency.interval is not None and latency.limit is not None and latency.interval.low <= latency.limit


def test_a_held_out_row_that_was_trained_on_is_counted(workspace: Workspace) -> None:
    write_jsonl(workspace.split("frozen"), [*rows("frozen", "is it the {}"), *rows("leaked", "The  {}")[:2]])
    run, trained, version = challenger(workspace)
    found = assess(workspace, run, trained, version, print).limits["leakage"]
    assert (found.value, found.limit, found.rows) == (2, 0, 8)


def test_an_untuned_version_can_be_champion(workspace: Workspace, tiny_encoder: BaseParams) -> None:
    """A linear and a prompted version answer as they did when they were candidates."""
    evaluating = workspace.params.evaluate.model_copy(update={"encoder": tiny_encoder})
    workspace = replace(workspace, params=workspace.params.model_copy(update={"evaluate": evaluating}))
    run, trained, version = challenger(workspace)
    first = assess(workspace, run, trained, version, print)
    assert set(first.candidates) == {"linear", "embeddings", "base", "few-shot"}
    for name in ("linear", "embeddings", "few-shot"):
        made = _register_rival(workspace, run, first, name, registry.get("colours", version))
        registry.promote("colours", made)
        release = registry.fetch_release("colours", made, workspace.home / "releases")
        assert release.evaluated == first.candidates[name].evaluated and release.evaluated.golden
        assert registry.get("colours", made).tags["answers"] == f"{run.id}/{name}"
        assert artifact(run.id, f"answers/{name}.jsonl", workspace.home) is not None
        again = assess(workspace, run, trained, version, print)
        assert again.champion_system == release.system == first.candidates[name].card.system
        before, after = first.evaluations["frozen"].scored[name], again.evaluations["frozen"].scored["champion"]
        assert after.texts == before.texts
        assert after.confidences == pytest.approx(before.confidences)
        assert (again.limits["latency"].limit is None) == (release.system == "linear")


def test_answers_of_the_base_are_cached(workspace: Workspace) -> None:
    run, trained, version = challenger(workspace)
    once = assess(workspace, run, trained, version, print)
    kept = {path: path.read_text() for path in (workspace.home / "answers").iterdir()}
    again = assess(workspace, run, trained, version, print)
    assert kept == {path: path.read_text() for path in (workspace.home / "answers").iterdir()}
    for name in ("base", "few-shot"):
        assert again.evaluations["frozen"].scored[name] == once.evaluations["frozen"].scored[name]


def test_a_prompted_champion_answers_no_more_rows_than_show_that_it_is_behind(workspace: Workspace) -> None:
    """It shows the examples that the base with examples shows, so that what one was asked the other knows."""
    many = [row for turn in range(30) for row in rows(f"frozen-{turn}", "is it the {}")]
    write_jsonl(workspace.split("frozen"), many)
    run, trained, version = challenger(workspace)
    first = assess(workspace, run, trained, version, print)
    made = _register_rival(workspace, run, first, "few-shot", registry.get("colours", version))
    registry.promote("colours", made)
    told: list[str] = []
    again = assess(workspace, run, trained, version, told.append)
    scored = again.evaluations["frozen"].scored
    assert len(scored["champion"].positions) < len(many) == len(scored["challenger"].positions)
    assert not any("rows answered" in line for line in told if line.startswith(("champion", "few-shot", "base")))
    evidence = promotion_evidence(again, workspace.params.promote)
    assert evidence.untrained and evidence.frozen.rows == len(scored["champion"].positions)
    assert choose(evidence, workspace.params.promote).verdict.outcome == "promote"


@pytest.fixture
def larger(json_server: Callable[..., str]) -> tuple[RemoteModel, list[str]]:
    """A model behind OpenAI's API that finds everything blue, and what it was asked."""
    asked: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(body["messages"][-1]["content"])
        choice = {"index": 0, "message": {"role": "assistant", "content": "Blue."}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}

    return RemoteModel(url=f"{json_server(reply)}/v1", model="large"), asked


def test_a_remote_champion_answers_each_row_once(workspace: Workspace, larger: tuple[RemoteModel, list[str]]) -> None:
    remote, asked = larger
    serving = workspace.params.serve.model_copy(update={"initial_model": remote})
    workspace = replace(workspace, params=workspace.params.model_copy(update={"serve": serving}))
    make_first_version(workspace, ServedBase(digest="b", tokens=lambda _: 1, context=1000))
    run, trained, version = challenger(workspace)
    found = assess(workspace, run, trained, version, print)
    scored = found.evaluations["frozen"].scored["champion"]
    assert (scored.texts, scored.scores) == (("blue",) * 6, (1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    assert sorted(asked) == sorted(f"is it the {thing}" for thing in THINGS), "nor for its speed: that costs money"
    assert (found.champion_system, "latency" in found.limits) == ("remote", False)
    assert promotion_evidence(found, workspace.params.promote).untrained
    assess(workspace, run, trained, version, print)
    assert len(asked) == 6, "what it once answered is remembered"


def test_recorded_answers_stand_beside_the_others(workspace: Workspace) -> None:
    (workspace.root / "large.jsonl").write_text('{"id": "frozen-sky", "output": "blue"}\n')
    params = workspace.params.model_copy(
        update={"evaluate": workspace.params.evaluate.model_copy(update={"recorded": "large.jsonl"})}
    )
    run, trained, version = challenger(workspace)
    found = assess(replace(workspace, params=params), run, trained, version, print)
    assert found.evaluations["frozen"].scored["recorded"].ids == ("frozen-sky",)
    assert "recorded" not in found.candidates


def test_the_hosted_models_answers_are_compared_on_the_rows_that_have_one(workspace: Workspace) -> None:
    """From a batch's output to the report, the decision and the line that `status` prints."""
    price = {"name": "large", "dollars_per_million_prompt_tokens": 2, "dollars_per_million_completion_tokens": 9}
    economics = EconomicsParams.model_validate({"larger_model": price})
    workspace = replace(workspace, params=workspace.params.model_copy(update={"economics": economics}))
    make_first_version(workspace, ServedBase(digest="b", tokens=lambda _: 1, context=1000))
    hosted = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "red"}
    asked = [(Message(role="user", content=f"is it the {thing}"), colour) for thing, colour in hosted.items()]
    answers = [
        HostedAnswer(None, ({"role": "user", "content": turn.content},), colour, "h:1") for turn, colour in asked
    ]
    save_answers(workspace.root / HOSTED_ANSWERS, stored(answers))
    run, trained, version = challenger(workspace)
    found = assess(workspace, run, trained, version, print)
    evaluation = found.evaluations["frozen"]

    assert evaluation.scored["hosted"].scores == (1.0, 1.0, 1.0, 0.0)
    assert (evaluation.incomplete, "hosted" in evaluation.sampled) == ({"hosted": 2}, False)
    assert "hosted" not in found.candidates
    assert "hosted" not in evaluation.economics
    report = (workspace.run_folder(run.id) / REPORT).read_text()
    assert "Hosted model: 2 of 6 rows have no recorded answer" in report

    evidence = promotion_evidence(found, workspace.params.promote)
    scores = evaluation.scored["challenger"].at([0, 1, 2, 3])
    mine = evidence.hosted["challenger"]
    assert (mine.score, mine.hosted, mine.lead.rows, mine.left_out) == (sum(scores) / 4, 0.75, 4, 2)
    assert mine.lead.difference == pytest.approx(sum(scores) / 4 - 0.75)
    assert {"challenger", "champion", "base"} <= set(evidence.hosted)
    decision = decide(workspace, run, CuratedData("0", {}, 0), trained, found, version, "0")
    line = hosted_in(decision)
    assert line is not None
    assert ", the hosted one 75.0% on the same 4 rows: " in line
    assert f"{line[0].upper()}{line[1:]}." in decision.reasons
    # What right answers cost is in the report, the decision, the description of the version and MLflow's metrics.
    assert decision.evidence["answer_costs"]["large"]["score"] == 0.75
    assert {"the base model", "the champion", "the challenger"} <= set(decision.evidence["answer_costs"])
    assert "Cost beside accuracy" in report and "right on 75.0%" in report
    described = MlflowClient().get_model_version("colours", version).description or ""
    assert "| large | 75.0% | " in described
    assert read_run(run.id).metrics["economics/larger_model/score"] == 0.75
    tag(run, {"perpetune.kind": "refresh"})
    close_run(run, succeeded=True)
    assert read_status(workspace).hosted == line


def test_the_hosted_model_can_be_left_out(workspace: Workspace) -> None:
    answers = [HostedAnswer(None, ({"role": "user", "content": "is it the sky"},), "blue", "h:1")]
    save_answers(workspace.root / HOSTED_ANSWERS, stored(answers))
    evaluating = workspace.params.evaluate.model_copy(update={"hosted": False})
    workspace = replace(workspace, params=workspace.params.model_copy(update={"evaluate": evaluating}))
    run, trained, version = challenger(workspace)

    assert "hosted" not in assess(workspace, run, trained, version, print).evaluations["frozen"].scored


def test_with_nothing_that_serves_the_first_pass_ends_with_a_version_that_does(workspace: Workspace) -> None:
    """Six held-out rows are too few: the prompted base serves, and the tuned version is tagged with the chosen one."""
    run, trained, version = challenger(workspace)
    found = assess(workspace, run, trained, version, print)
    decision = decide(workspace, run, CuratedData("0", {}, 0), trained, found, version, "0")
    assert decision.outcome == "promote" and decision.system in ("base", "few-shot")
    assert decision.reason.startswith("Serve the ")
    served = str(decision.ids.model_version)
    assert served != version
    tags = registry.get("colours", version).tags
    assert tags["decision"] == f"gave way to version {served} ({decision.system})"
    assert registry.get("colours", served).tags["decision"] == "promote"
    release = registry.fetch_release("colours", served, workspace.home / "releases")
    assert release.system == "prompted" and release.evaluated.golden
    again = decide(workspace, run, CuratedData("0", {}, 0), trained, found, version, "0")
    assert again.ids.model_version == served, "a pass that goes on keeps the version that it has made"

"""Free text without labels: a check asks a judge and the gateway, within a budget, and says how wrong each was."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console
from workspaces import write_params

from perpetune.curation.running.layout import REFERENCE
from perpetune.curation.text import fingerprint
from perpetune.explain.status import read_status
from perpetune.explain.status_screen import show_status
from perpetune.loop.rollout.deploy import release
from perpetune.loop.run_context import open_loop_run
from perpetune.loop.watch.check import CheckResult, check
from perpetune.loop.watch.estimates import CONSISTENCY, JUDGE
from perpetune.policy.estimated_accuracy import EstimatedFall, estimates_in
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Example, Feedback, Message, Prediction, RecordedAnswer, read_jsonl, write_jsonl
from perpetune.tracking import registry
from perpetune.tracking.runs import artifact, close_run, find_run, log_text
from perpetune.workspace import Workspace, open_workspace

pytestmark = [pytest.mark.slow, pytest.mark.integration]

ROWS = 60
RIGHT, WRONG = "the red house", "no idea"
Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


@dataclass
class World:
    """A workspace of free text with a champion, a judge that trusts its eyes, and a gateway that draws samples."""

    workspace: Workspace
    task: str
    judged: list[str] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)

    def grade(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """0.9 for what looks right, 0.7 for the rest: lenient, so that it has to be calibrated. One answer it cannot grade."""
        answer = json.loads(body["messages"][1]["content"])["answer"]
        self.judged.append(answer)
        said = {RIGHT: "0.9", WRONG: "0.7"}.get(answer, "I cannot say")
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 2}}

    def draw(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Samples agree with right answers and not with wrong ones: the champion answers `RIGHT` to all inputs."""
        self.sampled.append(len(body["conversations"]))
        outputs = {"output": RIGHT, "outputs": [RIGHT] * body["n"]}
        return 200, {"version": body["version"], "serving": "1", "answers": [outputs] * len(body["conversations"])}

    def answered(self, outputs: list[str], first: int = 0) -> None:
        log = open_log(self.workspace.settings.prediction_log)
        rows = [
            Prediction(
                id=f"r{number}",
                time=datetime.now(UTC) - timedelta(minutes=200 - number),
                task=self.task,
                version="1",
                messages=(Message(role="user", content=f"which house {number}"),),
                input=f"which house {number}",
                output=output,
                prompt_tokens=1,
                completion_tokens=1,
                latency_ms=10,
            )
            for number, output in enumerate(outputs, first)
        ]
        record_rows(log, rows)
        log.dispose()

    def labelled(self, label: str, count: int) -> None:
        log = open_log(self.workspace.settings.prediction_log)
        for number in range(count):
            said = Feedback(request_id=f"r{number}", time=datetime.now(UTC), label=label, propensity=1.0)
            add_feedback(log, said)
        log.dispose()

    def checked(self) -> CheckResult:
        run = open_loop_run(self.workspace, "watch", "manual", "a test", "flow-run")
        result = check(self.workspace, run, "flow-run")
        close_run(run, succeeded=True)
        assert result is not None
        return result


def estimate(result: CheckResult, method: str) -> EstimatedFall:
    return next(each for each in estimates_in(result.decision.evidence) if each.method == method)


@pytest.fixture
def begin(
    releases: Callable[..., Any], json_server: Callable[[Reply], str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., World]:
    """Open a world with these settings of `estimate`; three quarters of the champion's reference answers were right."""

    def start(*, judge: dict[str, Any] | None = None, **settings: object) -> World:
        opened = releases()
        world = World(opened.workspace, opened.task)
        named = {} if judge is None else {"judge": {"url": f"{json_server(world.grade)}/v1", "model": "big", **judge}}
        task = {"name": opened.task, "kind": "generation", "labels": None, "instruction": "Which one?"}
        write_params(opened.workspace.root, task=task, estimate={**named, **settings})
        world.workspace = open_workspace(opened.workspace.root)
        rows = [
            Example(input=f"which house {n}", output=RIGHT, id=f"f{n}", group=f"f{n}", source="test")
            for n in range(ROWS)
        ]
        write_jsonl(world.workspace.root / REFERENCE / "reference.jsonl", rows)
        version = opened.make()
        run = find_run(registry.get(world.task, version).run_id)
        recorded = [
            RecordedAnswer(
                id=row.id,
                holdout="frozen",
                output=RIGHT if number % 4 else WRONG,
                confidence=None,
                score=float(number % 4 > 0),
            )
            for number, row in enumerate(rows)
        ]
        log_text(run, "".join(each.model_dump_json() + "\n" for each in recorded), "answers/challenger.jsonl")
        registry.tag_version(world.task, version, {"answers": f"{run.id}/challenger"})
        release(world.workspace, version)
        monkeypatch.setenv("PERPETUNE_GATEWAY_URL", json_server(world.draw))
        world.workspace = open_workspace(opened.workspace.root)
        return world

    return start


def test_a_judge_is_calibrated_and_asked_about_each_answer_once(begin: Callable[..., World]) -> None:
    world = begin(judge={}, requests_per_day=1000)
    world.answered([RIGHT, WRONG] * 30)
    found = estimate(world.checked(), "judge")
    assert found.window.mean == pytest.approx(0.5) and found.window.rows == 60, "a grade of 0.7 means wrong"
    assert found.reference.mean == pytest.approx(0.75) and found.error is None
    assert len(world.judged) == 120
    again = estimate(world.checked(), "judge")
    assert (again, len(world.judged)) == (found, 120), "all grades are kept"


def test_the_error_on_labels_is_shown_in_status_report_and_metrics(begin: Callable[..., World]) -> None:
    """The rule changed: every answer is wrong now, which a judge without the new rule cannot see."""
    world = begin(judge={}, requests_per_day=1000)
    world.answered([RIGHT] * 60)
    world.labelled("the blue house", 60)
    result = world.checked()
    found = estimate(result, "judge")
    assert found.error is not None and found.is_wrong
    assert found.error.estimated == pytest.approx(1.0) and found.error.labelled == pytest.approx(0.5, abs=0.2)
    said = [reason for reason in result.decision.reasons if reason.startswith("The score estimated from judge")]
    assert len(said) == 1 and "on the last 60 labels it said 100.0 and labels said" in said[0]
    assert "decides nothing" in said[0]
    assert any("A judge is a model too" in reason for reason in result.decision.reasons)
    status = read_status(world.workspace)
    [line] = status.estimates
    assert line.startswith("judge 100.0 (n=60); said 100.0 on the last 60 labels, which said ")
    assert line.endswith("decides nothing")
    console = Console(record=True, width=200, file=None, quiet=False)
    with console.capture() as screen:
        show_status(status, console, verbose=True)
    assert f"estimate    {line}" in screen.get()
    run_id = str(result.decision.ids.run_id)
    report = artifact(run_id, "drift.html", world.workspace.run_folder(run_id))
    assert report is not None
    packed = re.search(r'atob\("([^"]+)"\)', report.read_text())
    page = gzip.decompress(base64.b64decode(packed[1])).decode() if packed else ""
    assert f"<li>{line}</li>" in page
    metrics = MlflowClient().get_run(run_id).data.metrics
    assert metrics["estimate/judge/score"] == pytest.approx(1.0) and metrics["estimate/judge/labels"] == 60
    assert metrics["estimate/judge/error"] == pytest.approx(found.error.error)
    assert metrics["estimate/judge/error_low"] < metrics["estimate/judge/error"] < metrics["estimate/judge/error_high"]


def test_a_small_budget_fills_the_reference_first_and_then_the_day_is_over(begin: Callable[..., World]) -> None:
    world = begin(judge={}, requests_per_day=50)
    world.answered([RIGHT] * 60)
    assert estimates_in(world.checked().decision.evidence) == [] and len(world.judged) == 50
    assert estimates_in(world.checked().decision.evidence) == [] and len(world.judged) == 50, "24 hours are not over"
    values = json.loads(registry.get(world.task, "1").tags[JUDGE])["values"]
    assert len(values) == 50 and set(values.values()) == {0.9, 0.7}


def test_rows_of_a_new_reference_are_asked_about_and_those_that_are_gone_count_no_more(
    begin: Callable[..., World],
) -> None:
    """Forty of sixty reference rows are asked about; then curation leaves ten of those out."""
    world = begin(judge={}, requests_per_day=40)
    world.answered([RIGHT] * 60)
    world.checked()
    by_lot = sorted(range(ROWS), key=lambda number: fingerprint("estimate", f"f{number}"))
    path = world.workspace.root / REFERENCE / "reference.jsonl"
    rows = [row for row in read_jsonl(path, Example) if int(row.id[1:]) not in by_lot[:10]]
    write_jsonl(path, rows)
    params = world.workspace.params
    enough = params.estimate.model_copy(update={"requests_per_day": 1000})
    world.workspace = replace(world.workspace, params=params.model_copy(update={"estimate": enough}))
    found = estimate(world.checked(), "judge")
    assert found.reference.rows == 50 and len(world.judged) == 40 + 20 + 60
    assert found.reference.mean == pytest.approx(sum(number % 4 > 0 for number in by_lot[10:]) / 50)


def test_a_budget_in_dollars_holds(begin: Callable[..., World]) -> None:
    """A reply of the longest length costs a cent at most, and 102 tokens cost less."""
    world = begin(
        judge={"dollars_written": 1000.0, "max_tokens": 10, "dollars_per_month": 0.205}, requests_per_day=1000
    )
    world.answered([RIGHT] * 60)
    for asked in (20, 20 + 16):  # 20.5 cents are left, then 16.5
        world.checked()
        assert len(world.judged) == asked


def test_replies_that_cannot_be_read_are_counted_and_have_no_score(begin: Callable[..., World]) -> None:
    world = begin(judge={}, requests_per_day=1000)
    world.answered([RIGHT] * 50 + ["[refused]"] * 10)
    result = world.checked()
    found = estimate(result, "judge")
    assert (found.unreadable, found.window.rows) == (10, 50) and found.window.mean == pytest.approx(1.0)
    assert any("10 replies have no readable score and count nowhere" in reason for reason in result.decision.reasons)
    world.checked()
    assert world.judged.count("[refused]") == 10, "they are not asked about again"


def test_a_judge_that_is_away_is_named_and_the_check_goes_on(begin: Callable[..., World]) -> None:
    world = begin(judge={"url": "http://127.0.0.1:9/v1"})
    world.answered([RIGHT] * 60)
    reasons = world.checked().decision.reasons
    assert any(reason.startswith("Judge: not all answers could be asked about: ") for reason in reasons)


def test_self_consistency_agrees_with_what_the_champion_says_again(begin: Callable[..., World]) -> None:
    world = begin(samples=3, requests_per_day=1000)
    world.answered([RIGHT] * 45 + [WRONG] * 15)
    world.labelled(RIGHT, 60)
    found = estimate(world.checked(), "self-consistency")
    assert found.window.mean == pytest.approx(0.75) and found.reference.mean == pytest.approx(0.75)
    assert found.error is not None and found.error.error == pytest.approx(0, abs=0.01) and not found.is_wrong
    assert sum(world.sampled) == 120 and max(world.sampled) <= 8
    tags = registry.get(world.task, "1").tags
    assert CONSISTENCY in tags and JUDGE not in tags


def test_nothing_is_asked_unless_a_setting_says_so(begin: Callable[..., World]) -> None:
    world = begin()
    world.answered([RIGHT] * 60)
    assert estimates_in(world.checked().decision.evidence) == [] and read_status(world.workspace).estimates == ()
    assert not world.judged and not world.sampled

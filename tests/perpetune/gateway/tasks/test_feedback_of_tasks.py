"""Feedback lands in the log of the task that answered, one by one and in batches."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import eventually

from perpetune.gateway.recording.recorder import Recorder
from perpetune.gateway.tasks import feedback_of_tasks
from perpetune.prediction_log.api_keys import add_key
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.writes import add_feedback_rows
from perpetune.records import Feedback

Start = Callable[..., Any]
FEEDBACK = "/v1/feedback"


def labels(gateway: Any, task: str) -> dict[str, str | None]:
    return {row.input: row.label for row in recent_predictions(gateway.log(task), task, limit=None)}


def answer_id(gateway: Any, task: str, text: str, **more: object) -> str:
    return str(gateway.ask(task, text, **more).json()["id"])


@pytest.mark.parametrize("shared_log", [False, True])
def test_each_label_goes_to_the_task_that_answered(start_tasks: Start, shared_log: bool) -> None:
    """Labels of the one are none of the other: `bad` is a label of reviews, and intents writes freely."""
    gateway = start_tasks(shared_log=shared_log)
    one, two = answer_id(gateway, "reviews", "one"), answer_id(gateway, "intents", "two")
    for stored in (False, True):  # while the answers are in the spool, and when they are in the log
        if stored:
            gateway.log("reviews"), gateway.log("intents")
        assert gateway.post(FEEDBACK, {"request_id": one, "label": "bad"}).json()["id"] == one
        assert gateway.post(FEEDBACK, {"request_id": two, "label": "book a flight"}).json()["id"] == two
        refused = gateway.post(FEEDBACK, {"request_id": one, "label": "book a flight"})
        assert refused.json()["error"]["code"] == "invalid_label"
    assert labels(gateway, "reviews") == {"one": "bad"}
    assert labels(gateway, "intents") == {"two": "book a flight"}
    for task in ("reviews", "intents"):  # below its path a task knows its own answers only
        foreign = two if task == "reviews" else one
        reply = gateway.post(f"/tasks/{task}{FEEDBACK}", {"request_id": foreign, "score": 1})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_request")


def test_a_batch_for_several_is_answered_row_by_row(start_tasks: Start) -> None:
    gateway = start_tasks()
    ids = [answer_id(gateway, task, f"{task} {n}") for n in range(2) for task in ("reviews", "intents")]
    rows: list[dict[str, object]] = [
        {"request_id": ids[1], "label": "größer"},
        {"request_id": ids[0], "label": "good"},
        {"request_id": ids[2], "label": "no such label"},
        {"request_id": "chatcmpl-none", "score": 0},
        {"request_id": ids[3], "score": 1},
        {"score": 1},
        {"request_id": ids[3], "label": "half \ud83d"},
    ]
    reply = gateway.post(FEEDBACK, rows)
    assert reply.status_code == 200
    content = reply.json()
    assert (content["object"], content["recorded"], content["refused"]) == ("list", 3, 4)
    codes = [each.get("error", {}).get("code") for each in content["data"]]
    assert codes == [
        *(None, None, "invalid_label", "unknown_request"),
        *(None, "missing_required_parameter", "invalid_value"),
    ]
    assert [each["request_id"] for each in content["data"]] == [row.get("request_id") for row in rows]
    assert labels(gateway, "reviews") == {"reviews 0": "good", "reviews 1": None}
    assert labels(gateway, "intents") == {"intents 0": "größer", "intents 1": None}


def test_json_lines_and_what_is_refused_as_a_whole(start_tasks: Start) -> None:
    gateway = start_tasks()
    one, two = answer_id(gateway, "reviews", "one"), answer_id(gateway, "intents", "two")
    lines = "\n".join([json.dumps({"request_id": one, "score": 2}), "{", json.dumps({"request_id": two, "score": 3})])
    sent = {"content-type": "application/x-ndjson"}
    reply = httpx.post(gateway.url + FEEDBACK, content=lines, headers=sent, timeout=10)
    assert reply.status_code == 400
    assert [each["error"]["code"] for each in reply.json()["data"]] == [
        "invalid_value",
        "invalid_json",
        "invalid_value",
    ]
    for body, content_type, code in (
        ("{", "application/json", "invalid_json"),
        ("{}", "application/json", "missing_required_parameter"),
        ("x", "text/plain", "invalid_content_type"),
    ):
        alone = httpx.post(gateway.url + FEEDBACK, content=body, headers={"content-type": content_type}, timeout=10)
        assert alone.json()["error"]["code"] == code
    assert gateway.post(FEEDBACK, []).json() == {"object": "list", "recorded": 0, "refused": 0, "data": []}


def test_the_clients_own_ids(start_tasks: Start) -> None:
    """Two tasks' clients may use the same: then the task must be named."""
    gateway = start_tasks()
    answer_id(gateway, "intents", "mine", metadata={"request_id": "order-1"})
    for task in ("reviews", "intents"):
        answer_id(gateway, task, "both", metadata={"request_id": "order-2"})
    gateway.log("reviews"), gateway.log("intents")
    assert gateway.post(FEEDBACK, {"request_id": "order-1", "label": "fly"}).status_code == 200
    ambiguous = gateway.post(FEEDBACK, {"request_id": "order-2", "score": 1})
    assert (ambiguous.status_code, ambiguous.json()["error"]["code"]) == (400, "ambiguous_request")
    assert "/tasks/NAME/v1/feedback" in ambiguous.json()["error"]["message"]
    batch = gateway.post(FEEDBACK, [{"request_id": "order-2", "score": 1}, {"request_id": "order-1", "score": 1}])
    assert [each["status"] for each in batch.json()["data"]] == ["refused", "recorded"]
    named = gateway.post(f"/tasks/intents{FEEDBACK}", {"request_id": "order-2", "label": "stay"})
    assert named.status_code == 200
    assert labels(gateway, "intents") == {"mine": "fly", "both": "stay"}
    assert labels(gateway, "reviews") == {"both": None}


def test_an_answer_of_just_now_does_not_hide_that_of_another_task_with_the_same_id(start_tasks: Start) -> None:
    gateway = start_tasks()
    answer_id(gateway, "reviews", "both", metadata={"request_id": "order-2"})
    gateway.log("reviews")
    answer_id(gateway, "intents", "both", metadata={"request_id": "order-2"})
    ambiguous = gateway.post(FEEDBACK, {"request_id": "order-2", "score": 1})
    assert ambiguous.json().get("error", {}).get("code") == "ambiguous_request"


def test_an_id_that_several_tasks_have_is_clear_with_a_key_for_one(start_tasks: Start) -> None:
    """Nor does the key's holder learn which ids the other tasks have."""
    gateway = start_tasks(shared_log=True)
    for task in ("reviews", "intents"):
        answer_id(gateway, task, "both", metadata={"request_id": "order-2"})
    gateway.log("reviews")
    key = add_key(gateway.tasks["reviews"].log, "mine", ["feedback"], ["intents"])
    eventually(lambda: gateway.get("/v1/models").status_code == 401)
    assert gateway.post(FEEDBACK, {"request_id": "order-2", "label": "stay"}, key).status_code == 200
    assert labels(gateway, "intents") == {"both": "stay"}
    assert labels(gateway, "reviews") == {"both": None}


def test_a_key_gives_feedback_only_on_its_tasks(start_tasks: Start) -> None:
    gateway = start_tasks(shared_log=True)
    one, two = answer_id(gateway, "reviews", "one"), answer_id(gateway, "intents", "two")
    key = add_key(gateway.tasks["reviews"].log, "mine", ["feedback"], ["intents"])
    eventually(lambda: gateway.get("/v1/models").status_code == 401)
    assert gateway.post(FEEDBACK, {"request_id": two, "score": 1}, key).status_code == 200
    refused = gateway.post(FEEDBACK, {"request_id": one, "score": 1}, key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "key_of_other_task")
    rows = [{"request_id": one, "score": 1}, {"request_id": two, "score": 1}]
    assert [each["status"] for each in gateway.post(FEEDBACK, rows, key).json()["data"]] == ["refused", "recorded"]
    unknown = gateway.post(FEEDBACK, {"request_id": "none", "score": 1}, key)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_request")


def test_a_log_that_is_down_is_no_unknown_answer(start_tasks: Start, tmp_path: Path) -> None:
    """The client keeps the label and sends it again."""
    gateway = start_tasks()
    two = answer_id(gateway, "intents", "two")
    gateway.log("intents")
    file = tmp_path / "intents.db"
    file.rename(tmp_path / "away")
    reply = gateway.post(FEEDBACK, {"request_id": two, "label": "fly"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "log_unavailable")
    (tmp_path / "away").rename(file)
    assert gateway.post(FEEDBACK, {"request_id": two, "label": "fly"}).status_code == 200


def test_a_task_does_not_take_feedback_on_the_answer_of_another(start_tasks: Start) -> None:
    gateway = start_tasks(shared_log=True)
    two = answer_id(gateway, "intents", "two")
    log = gateway.log("intents")
    given = Feedback(request_id=two, time=recent_predictions(log, "intents", limit=None)[0].time, label="fly")
    [refused] = add_feedback_rows(log, [given], "reviews")
    assert isinstance(refused, Exception)
    assert add_feedback_rows(log, [given], "intents") == [two]


def test_a_part_that_is_refused_names_only_ids_that_a_reply_can_hold(start_tasks: Start) -> None:
    gateway = start_tasks(shared_log=True)
    two = answer_id(gateway, "intents", "two")
    key = add_key(gateway.tasks["reviews"].log, "asks", ["ask"])
    eventually(lambda: gateway.get("/v1/models").status_code == 401)
    rows: list[dict[str, object]] = [
        {"request_id": two, "score": 1},
        {"request_id": float("nan"), "score": 1},
        {"request_id": "half \ud83d", "score": 1},
    ]
    reply = gateway.post(FEEDBACK, rows, key)
    assert reply.status_code == 403
    assert [each["request_id"] for each in reply.json()["data"]] == [two, None, "half �"]


def test_an_answer_is_looked_for_until_another_gateway_has_written_it(
    start_tasks: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all logs: the first task, which gets what is in none, waits for those of its own only."""
    gateway = start_tasks()
    looks: list[float] = []

    def none_yet(*_: object) -> dict[str, frozenset[str]]:
        looks.append(time.monotonic())
        return {}

    monkeypatch.setattr(feedback_of_tasks, "tasks_of_answers", none_yet)
    gateway.post(FEEDBACK, {"request_id": "chatcmpl-of-another-gateway", "label": "fly"})
    group_seconds = inspect.signature(Recorder).parameters["group_seconds"].default
    assert looks[-1] - looks[0] > group_seconds

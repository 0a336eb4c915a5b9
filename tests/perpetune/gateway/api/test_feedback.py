from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from fastapi.testclient import TestClient
from gateways import PARAMS

from perpetune.gateway.app import create_app
from perpetune.model.release import Release
from perpetune.params import LogParams
from perpetune.prediction_log.labels.rule import LabelPolicy
from perpetune.prediction_log.queries import counts, recent_predictions
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

LABELS = ("negative", "positive")
Make = Callable[..., Release]
NDJSON = {"content-type": "application/x-ndjson"}
SCHEMA = {"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}


@contextmanager
def serving(log: sqlalchemy.Engine, *releases: Release, **more: Any) -> Iterator[TestClient]:
    """A gateway of these releases, the first of which is champion."""
    source = FakeSource([*releases], champion=releases[0].version)
    app = create_app("reviews", engine=FakeEngine(), source=source, log=log, params=PARAMS, max_new_tokens=16, **more)
    with TestClient(app, raise_server_exceptions=False) as client:
        deadline = time.monotonic() + 10
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield client


def asked(client: TestClient, text: str = "fine", headers: dict[str, str] | None = None, **more: object) -> str:
    body = {"model": "reviews", "messages": [{"role": "user", "content": text}], **more}
    reply = client.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def rows(log: sqlalchemy.Engine, client: Any) -> list[Prediction]:
    client.app.state.recorder.flush()
    return recent_predictions(log, "reviews", limit=None)


@pytest.mark.parametrize("label", ["thumbs_up", "1", "👍", " ", "\n", "\u3000", "x" * 200_000, "positive negative"])
def test_a_label_that_no_answer_could_equal_is_refused(log: sqlalchemy.Engine, release: Make, label: str) -> None:
    with serving(log, release("1", LABELS)) as client:
        reply = client.post("/v1/feedback", json={"request_id": asked(client), "label": label})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "label")
        assert not label.strip() or "negative, positive" in reply.json()["error"]["message"]
        assert len(reply.text) < 1000
        assert rows(log, client)[0].label is None


@pytest.mark.parametrize("label", ["positive", " Positive\n", "POSITIVE"])
def test_a_label_is_stored_in_the_tasks_spelling(log: sqlalchemy.Engine, release: Make, label: str) -> None:
    with serving(log, release("1", LABELS)) as client:
        assert client.post("/v1/feedback", json={"request_id": asked(client), "label": label}).status_code == 200
        assert rows(log, client)[0].label == "positive"
        with log.connect() as connection:
            assert connection.exec_driver_sql("select label from feedback").scalar_one() == "positive"


def test_labels_of_params_of_every_loaded_version_and_new_ones_where_they_are_welcome(
    log: sqlalchemy.Engine, release: Make
) -> None:
    def statuses(policy: LabelPolicy, *releases: Release, labels: tuple[str, ...]) -> list[int]:
        with serving(log, *releases, labels=policy) as client:
            one = asked(client)
            return [client.post("/v1/feedback", json={"request_id": one, "label": each}).status_code for each in labels]

    new, blank, long = "delivery", " ", "x" * 5000
    served = release("1", LABELS)
    assert statuses(LabelPolicy(), served, labels=("positive", new)) == [200, 400]
    assert statuses(LabelPolicy(("positive", new)), served, labels=("positive", new, "negative")) == [200, 200, 400]
    assert statuses(LabelPolicy(new_labels=True), served, labels=(new, blank, long)) == [200, 400, 400]
    # A first version that was made before any label was known.
    assert statuses(LabelPolicy(), release("1", None), labels=(new, blank, long)) == [200, 400, 400]


def test_a_label_of_a_task_with_a_schema_satisfies_it(log: sqlalchemy.Engine, tmp_path: Path, release: Make) -> None:
    plain = release("1", None)
    served = Release("reviews", "1", plain.adapter, "Judge it.", None, plain.base, output_schema=SCHEMA)
    with serving(log, served) as client:
        one = asked(client)
        assert client.post("/v1/feedback", json={"request_id": one, "label": '{"stars": 4}'}).status_code == 200
        for label in ("good", '{"stars": "four"}', "{}"):
            reply = client.post("/v1/feedback", json={"request_id": one, "label": label})
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_label")


@pytest.mark.parametrize("score", [-0.01, 1.01, 5, -1, 100])
def test_a_score_outside_0_to_1_is_refused(log: sqlalchemy.Engine, release: Make, score: float) -> None:
    with serving(log, release("1")) as client:
        reply = client.post("/v1/feedback", json={"request_id": asked(client), "score": score})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "score")
        assert rows(log, client)[0].score is None


def test_a_lot_of_the_clients_own_is_stored_with_its_propensity(log: sqlalchemy.Engine, release: Make) -> None:
    with serving(log, release("1", LABELS)) as client:
        said = {"request_id": asked(client), "label": "positive", "propensity": 0.05}
        assert [client.post("/v1/feedback", json=said).status_code for _ in range(2)] == [200, 200]
        [row] = rows(log, client)
        assert (row.chosen, row.propensity, row.weight) == ("lot", 0.05, 1.0)
        for wrong in (0, -0.1, 1.5, "often", [0.5]):
            reply = client.post("/v1/feedback", json={**said, "propensity": wrong})
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "propensity")
        with log.connect() as connection:
            assert connection.exec_driver_sql("select count(*) from feedback").scalar_one() == 1


def test_unknown_fields_are_named(log: sqlalchemy.Engine, release: Make) -> None:
    with serving(log, release("1", LABELS)) as client:
        body = {"request_id": asked(client), "label": "positive", "rating": 5, "lable": "x"}
        error = client.post("/v1/feedback", json=body).json()["error"]
        assert (error["param"], error["code"]) == ("rating", "unknown_parameter")
        assert "rating, lable" in error["message"] and "request_id, index, label, score, comment" in error["message"]
        assert rows(log, client)[0].label is None


@pytest.mark.parametrize(
    ("headers", "more", "name"),
    [
        ({}, {"metadata": {"request_id": "order 17"}}, "order 17"),
        ({"x-request-id": "trace-1"}, {}, "trace-1"),
        ({"x-client-request-id": "mine", "x-request-id": "proxy"}, {}, "mine"),
        ({"x-request-id": "proxy"}, {"metadata": {"request_id": "order 17"}}, "order 17"),
        ({"x-request-id": "proxy"}, {"metadata": {"request_id": 17}}, "proxy"),
        ({"x-request-id": "proxy"}, {"metadata": "none"}, "proxy"),
    ],
)
def test_feedback_by_the_clients_own_id(
    log: sqlalchemy.Engine, release: Make, headers: dict[str, str], more: dict[str, Any], name: str
) -> None:
    with serving(log, release("1", LABELS)) as client:
        older = asked(client, headers=headers, **more)
        newer = asked(client, headers=headers, **more)
        at_once = client.post("/v1/feedback", json={"request_id": name, "label": "negative"}).json()
        assert at_once == {"request_id": name, "id": newer, "status": "recorded"}
        assert [row.client_id for row in rows(log, client)] == [name, name]
        later = client.post("/v1/feedback", json={"request_id": name, "label": "positive"}).json()
        assert later["id"] == newer
        by_id = {row.id: row.label for row in rows(log, client)}
        assert by_id == {older: None, newer: "positive"}


def test_an_own_id_of_another_task_is_not_found(
    log: sqlalchemy.Engine, release: Make, prediction: Callable[..., Prediction]
) -> None:
    record_rows(log, [prediction(1, client_id="order 17", task="other")])
    with serving(log, release("1", LABELS)) as client:
        reply = client.post("/v1/feedback", json={"request_id": "order 17", "label": "positive"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_request")


def test_own_ids_with_personal_data_stay_different_when_redacted(log: sqlalchemy.Engine, release: Make) -> None:
    with serving(log, release("1", LABELS), log_params=LogParams(redact=True)) as client:
        ids = [asked(client, metadata={"request_id": f"{name}@example.org"}) for name in ("ann", "bob")]
        reply = client.post("/v1/feedback", json={"request_id": "ann@example.org", "label": "positive"})
        assert reply.json()["id"] == ids[0]
        found = rows(log, client)
        assert [row.label for row in found] == ["positive", None]
        assert len({row.client_id for row in found}) == 2 and "example" not in str(found[0].client_id)


def test_feedback_on_one_of_several_answers(log: sqlalchemy.Engine, release: Make) -> None:
    with serving(log, release("1")) as client:
        for wait in (False, True):
            one = asked(client, f"fine {wait}", n=3)
            if wait:
                rows(log, client)
            for index, score in ((2, 0.25), (0, 0.75)):
                said = client.post("/v1/feedback", json={"request_id": one, "index": index, "score": score})
                assert said.status_code == 200
            beyond = client.post("/v1/feedback", json={"request_id": one, "index": 3, "score": 1})
            assert (beyond.status_code, beyond.json()["error"]["param"]) == (400, "index")
            assert "0 to 2" in beyond.json()["error"]["message"]
        found = rows(log, client)
        assert [row.score for row in found] == [0.75, 0.75], "that of the first answer, which is compared"
        assert found[0].other_outputs == (found[0].output,) * 2
        with log.connect() as connection:
            kept = connection.exec_driver_sql("select choice, score from feedback order by id").all()
        assert [tuple(row) for row in kept] == [(2, 0.25), (0, 0.75)] * 2


def test_a_batch_reports_each_row(log: sqlalchemy.Engine, release: Make) -> None:
    with serving(log, release("1", LABELS)) as client:
        ids = [asked(client, metadata={"request_id": f"order {number}"}) for number in range(3)]
        rows(log, client)
        spooled = asked(client)
        batch: list[object] = [
            {"request_id": ids[0], "label": "positive"},
            {"request_id": "order 1", "label": "negative", "comment": "late"},
            {"request_id": ids[2], "label": "thumbs_up"},
            {"request_id": "nobody", "label": "positive"},
            {"request_id": spooled, "score": 1},
            {"label": "positive"},
            "positive",
        ]
        reply = client.post("/v1/feedback", json=batch)
        assert reply.status_code == 200
        body = reply.json()
        assert (body["recorded"], body["refused"]) == (3, 4)
        assert [row["status"] for row in body["data"]] == ["recorded"] * 2 + ["refused"] * 2 + ["recorded"] + [
            "refused"
        ] * 2
        assert body["data"][1] == {"request_id": "order 1", "id": ids[1], "status": "recorded"}
        codes = [row["error"]["code"] for row in body["data"] if "error" in row]
        assert codes == ["invalid_label", "unknown_request", "missing_required_parameter", "invalid_value"]
        assert [row.label for row in rows(log, client)] == ["positive", "negative", None, None]
        assert client.post("/v1/feedback", json=[]).json()["recorded"] == 0
        nothing = client.post("/v1/feedback", json=[batch[2], batch[3]])
        assert (nothing.status_code, nothing.json()["recorded"]) == (400, 0)


def test_a_batch_of_json_lines(log: sqlalchemy.Engine, release: Make) -> None:
    with serving(log, release("1", LABELS)) as client:
        ids = [asked(client) for _ in range(3)]
        lines = [json.dumps({"request_id": one, "label": "positive"}) for one in ids]
        content = f"{lines[0]}\n\n{{broken\r\n{lines[1]}\n{lines[2]}"
        reply = client.post("/v1/feedback", content=content, headers=NDJSON)
        assert (reply.json()["recorded"], reply.json()["refused"]) == (3, 1)
        assert reply.json()["data"][1]["error"]["code"] == "invalid_json"
        assert [row.label for row in rows(log, client)] == ["positive"] * 3


@pytest.mark.slow
def test_10_000_labels_take_seconds(
    log: sqlalchemy.Engine, release: Make, prediction: Callable[..., Prediction]
) -> None:
    record_rows(log, [prediction(number, client_id=f"order {number}") for number in range(10_000)])
    with serving(log, release("1", LABELS)) as client:
        for name, label in (("chatcmpl-{}", "positive"), ("order {}", "negative")):
            batch = [{"request_id": name.format(number), "label": label} for number in range(10_000)]
            began = time.monotonic()
            reply = client.post("/v1/feedback", json=batch)
            assert time.monotonic() - began < 10
            assert (reply.json()["recorded"], reply.json()["refused"]) == (10_000, 0)
            assert counts(log, "reviews").labelled == 10_000
    assert {row.label for row in recent_predictions(log, "reviews", limit=100)} == {"negative"}


def test_a_body_of_another_kind_is_refused(standing: Any) -> None:
    reply = httpx.post(f"{standing.url}/v1/feedback", content=b"{}", headers={"content-type": "text/plain"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_content_type")

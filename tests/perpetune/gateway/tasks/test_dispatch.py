"""Each request reaches the task that it is for, and no other."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gateways import PARAMS
from waiting import eventually

from perpetune.gateway.api.approval_routes import Approvals, Waiting
from perpetune.gateway.middleware.draining import drain
from perpetune.prediction_log.api_keys import add_key
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.testing.fake_engine import FakeEngine

Start = Callable[..., Any]
CHAT = "/v1/chat/completions"


def error_of(reply: httpx.Response, status: int) -> dict[str, str]:
    assert reply.status_code == status, reply.text
    assert reply.headers["x-request-id"]
    error: dict[str, str] = reply.json()["error"]
    return error


def test_the_model_names_the_task(standing_tasks: Any) -> None:
    with openai.OpenAI(base_url=f"{standing_tasks.url}/v1", api_key="none", max_retries=0) as client:
        for model, name, text in (
            ("reviews", "reviews@1", "good"),
            ("reviews@1", "reviews@1", "good"),
            ("intents", "intents@1", "intents@1: hello"),
        ):
            said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
            assert (said.model, said.choices[0].message.content) == (name, text)
            chunks = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "hello"}], stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        assert [model.id for model in client.models.list()] == ["reviews", "reviews@1", "intents", "intents@1"]
        assert client.models.retrieve("intents@1").id == "intents@1"
        assert client.completions.create(model="intents", prompt="hi").choices[0].text == "intents@1: hi"
        assert client.responses.create(model="intents", input="hi").output_text == "intents@1: hi"


@pytest.mark.parametrize("model", ["tickets", "tickets@1", "", "@1", "Reviews", "/reviews"])
def test_an_unknown_model_is_404_and_names_the_tasks(standing_tasks: Any, model: str) -> None:
    for reply in (standing_tasks.ask(model), standing_tasks.get(f"/v1/models/{model or 'none'}")):
        error = error_of(reply, 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "`reviews` and `intents`" in error["message"]


def test_a_version_that_only_the_other_task_could_have_is_404(standing_tasks: Any) -> None:
    for model in ("reviews@9", "intents@2", "intents@"):
        assert error_of(standing_tasks.ask(model), 404)["code"] == "model_not_found"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"model": 5}', b'{"model": {}}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_names_no_model_is_refused_as_by_one_task(standing_tasks: Any, body: bytes) -> None:
    json_ = {"content-type": "application/json"}
    found = httpx.post(standing_tasks.url + CHAT, content=body, headers=json_, timeout=10)
    alone = httpx.post(f"{standing_tasks.url}/tasks/reviews{CHAT}", content=body, headers=json_, timeout=10)
    assert (found.status_code, found.json()) == (alone.status_code, alone.json())
    assert 400 <= found.status_code < 500


def test_a_compressed_body_is_read(standing_tasks: Any) -> None:
    body = json.dumps({"model": "intents", "messages": [{"role": "user", "content": "hello"}]}).encode()
    sent = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = httpx.post(standing_tasks.url + CHAT, content=gzip.compress(body), headers=sent, timeout=10)
    assert answer.json()["model"] == "intents@1"
    broken = httpx.post(standing_tasks.url + CHAT, content=b"no gzip", headers=sent, timeout=10)
    assert error_of(broken, 400)["code"] == "invalid_encoding"
    sent["content-encoding"] = "br"
    assert error_of(httpx.post(standing_tasks.url + CHAT, content=body, headers=sent, timeout=10), 415)


def test_limits_are_those_of_the_task(start_tasks: Start) -> None:
    small = PARAMS.model_copy(update={"max_request_chars": 10, "requests_per_minute": 1})
    gateway = start_tasks(params={"reviews": small})
    assert error_of(gateway.ask("reviews", "x" * 11), 413)
    assert gateway.ask("intents", "x" * 11).status_code == 200
    assert error_of(gateway.ask("reviews"), 429)["code"] == "rate_limit_exceeded"
    assert gateway.ask("intents").status_code == 200
    assert error_of(gateway.ask("intents", "x" * 200_000), 413)["code"] == "request_too_large"


def test_a_body_that_never_comes_is_ended(start_tasks: Start) -> None:
    quick = PARAMS.model_copy(update={"timeout_seconds": 0.3})
    gateway = start_tasks(params={"reviews": quick, "intents": quick})
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{".encode())
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 408") and b"connection: close" in answer.lower()


def test_below_a_tasks_path_it_answers_as_if_it_were_alone(standing_tasks: Any) -> None:
    with openai.OpenAI(base_url=f"{standing_tasks.url}/tasks/intents/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["intents", "intents@1"]
        said = client.chat.completions.create(model="intents", messages=[{"role": "user", "content": "hello"}])
        assert said.choices[0].message.content == "intents@1: hello"
        with pytest.raises(openai.NotFoundError, match="`reviews` does not exist"):
            client.chat.completions.create(model="reviews", messages=[{"role": "user", "content": "hello"}])
    state = standing_tasks.get("/tasks/intents/readyz").json()
    assert (state["task"], state["serving"], state["workspace"]) == ("intents", "1", "the-stack")
    assert "`reviews` and `intents`" in error_of(standing_tasks.get("/tasks/tickets/v1/models"), 404)["message"]
    assert standing_tasks.get("/tasks/intents").status_code == 404


def test_a_swap_of_one_leaves_the_other_alone(start_tasks: Start) -> None:
    gateway = start_tasks()
    gateway.sources["reviews"].promote("2")
    done = gateway.post("/v1/release/check", {"task": "reviews"})
    assert done.json()["serving"] == "2"
    assert [gateway.ask(task).json()["model"] for task in ("reviews", "intents")] == ["reviews@2", "intents@1"]
    assert gateway.get("/readyz").json()["tasks"]["intents"]["champion"] == "1"
    back = gateway.post("/v1/release/rollback", {"task": "reviews"})
    assert (back.json()["from"], back.json()["to"]) == ("2", "1")
    assert gateway.ask("reviews").json()["model"] == "reviews@1"
    eventually(lambda: "reviews@2" not in gateway.engine.loaded)
    assert "intents@1" in gateway.engine.loaded


def test_release_paths_need_a_task(standing_tasks: Any) -> None:
    for path in ("check", "answers", "rollback"):
        error = error_of(standing_tasks.post(f"/v1/release/{path}", {}), 400)
        assert error["code"] == "task_needed" and "/tasks/NAME" in error["message"]
    for task in ("tickets", 5, ["reviews"]):
        assert error_of(standing_tasks.post("/v1/release/check", {"task": task}), 409)["code"] == "other_task"
    other = standing_tasks.post("/v1/release/check", {"task": "intents", "workspace": "another"})
    assert error_of(other, 409)["code"] == "other_workspace"
    replayed = standing_tasks.post(
        "/v1/release/answers",
        {"task": "intents", "version": "1", "conversations": [[{"role": "user", "content": "hello"}]]},
    )
    assert replayed.json()["answers"] == [{"output": "intents@1: hello", "outputs": [], "error": None}]


def test_approvals_are_of_the_task_that_is_named(start_tasks: Start, tmp_path: Path) -> None:
    def waiting(version: str) -> Approvals:
        return Approvals(lambda: [Waiting(version=version, until=None, flow_run=None)], lambda *_: "run")

    gateway = start_tasks(approvals={"reviews": waiting("3"), "intents": waiting("4")})
    assert error_of(gateway.get("/v1/approvals"), 400)["code"] == "task_needed"
    for task, version in (("reviews", "3"), ("intents", "4")):
        for path in (f"/v1/approvals?task={task}", f"/tasks/{task}/v1/approvals"):
            assert [each["version"] for each in gateway.get(path).json()] == [version]
    assert error_of(gateway.get("/v1/approvals?task=tickets"), 409)["code"] == "other_task"
    boss = add_key(gateway.tasks["reviews"].log, "boss", ["admin"], ["intents"])
    eventually(lambda: gateway.get("/v1/models").status_code == 401)
    answer = {"approve": True, "comment": "looked at it"}
    assert gateway.post("/v1/approvals/4?task=intents", answer, boss).json()["by"] == "key boss"
    assert error_of(gateway.post("/v1/approvals/3?task=reviews", answer, boss), 403)["code"] == "key_of_other_task"


def test_a_list_of_models_is_no_attempt_on_the_tasks_that_the_key_is_not_for(start_tasks: Start) -> None:
    """It is counted as a request that was refused, and there is an alert on those."""
    gateway = start_tasks()
    key = add_key(gateway.tasks["reviews"].log, "one", ["ask"], ["intents"])
    eventually(lambda: gateway.get("/v1/models").status_code == 401)
    before = gateway.get("/metrics").text
    assert gateway.get("/v1/models", key).status_code == 200
    refused = [line for line in gateway.get("/metrics").text.splitlines() if "key_of_other_task" in line]
    assert "key_of_other_task" not in before
    assert refused == []


def test_a_key_asks_only_its_tasks(start_tasks: Start) -> None:
    gateway = start_tasks()
    main = gateway.tasks["reviews"].log
    one, every, none = (
        add_key(main, "one", ["ask"], ["intents"]),
        add_key(main, "every", ["ask"]),
        add_key(main, "none", ["ask"], ["tickets"]),
    )
    own = add_key(gateway.tasks["intents"].log, "own", ["ask"])  # in the workspace of the second task
    eventually(lambda: gateway.ask("reviews").status_code == 401 == gateway.ask("intents").status_code)
    found = {
        name: [gateway.ask(task, key=key).status_code for task in ("reviews", "intents")]
        for name, key in {"one": one, "every": every, "none": none, "own": own, "wrong": "x" * 40}.items()
    }
    assert found == {
        "one": [403, 200],
        "every": [200, 200],
        "none": [403, 403],
        "own": [401, 200],
        "wrong": [401, 401],
    }
    refused = error_of(gateway.ask("reviews", key=one), 403)
    assert refused["message"] == "This API key is for intents only, not for reviews."
    listed = {key: [model["id"] for model in gateway.get("/v1/models", key).json()["data"]] for key in (one, every)}
    assert listed == {one: ["intents", "intents@1"], every: ["reviews", "reviews@1", "intents", "intents@1"]}
    unknown = error_of(gateway.ask("tickets", key=one), 404)["message"]
    assert "`intents`" in unknown and "reviews" not in unknown, "what it may not use is not named"
    assert error_of(gateway.ask("tickets"), 401), "and nothing to a stranger"
    assert gateway.get("/v1/models").status_code == 401
    assert gateway.get("/v1/nothing", one).status_code == 404


def test_the_body_of_a_stranger_is_not_read(start_tasks: Start) -> None:
    gateway = start_tasks()
    add_key(gateway.tasks["reviews"].log, "shop", ["ask"])
    eventually(lambda: gateway.ask("reviews").status_code == 401)
    host, port = gateway.url.removeprefix("http://").split(":")
    for path in ("/v1/feedback", CHAT, "/v1/release/check"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 401")


def test_ready_when_each_task_is_or_says_why_not(start_tasks: Start) -> None:
    gateway = start_tasks(engine=FakeEngine(broken=frozenset({"intents@1"})))
    state = gateway.get("/readyz").json()
    assert (state["ready"], state["workspace"]) == (True, "the-stack")
    assert state["tasks"]["reviews"]["ready"] and not state["tasks"]["intents"]["ready"]
    assert "does not fit the base" in state["tasks"]["intents"]["release"]
    assert gateway.get("/tasks/intents/readyz").status_code == 503
    assert gateway.ask("intents").status_code == 503
    assert gateway.ask("reviews").status_code == 200, "the fault of one takes nothing from the other"
    assert gateway.get("/healthz").json() == {"status": "ok"}
    assert httpx.head(gateway.url + "/readyz").status_code == 200


def test_not_ready_while_a_task_still_loads(start_tasks: Start, tmp_path: Path) -> None:
    gateway = start_tasks()
    source = gateway.sources["intents"]
    source.champion_version, source.registered = None, 2  # deleted, and registered again without a champion yet
    eventually(lambda: gateway.get("/readyz").status_code == 503)
    source.champion_version = "2"
    eventually(lambda: gateway.get("/readyz").status_code == 200)


def test_metrics_have_the_task(standing_tasks: Any) -> None:
    standing_tasks.ask("reviews")
    standing_tasks.ask("intents")
    standing_tasks.ask("tickets")
    text = standing_tasks.get("/metrics").text
    for task in ("reviews", "intents"):
        assert f'perpetune_release_serving{{task="{task}",version="1"}} 1.0' in text
        assert f'perpetune_http_requests_total{{path="{CHAT}",status="200",task="{task}"}}' in text
    assert 'perpetune_http_requests_total{path="other",status="404",task=""}' in text
    assert text.count("# TYPE perpetune_http_requests_total counter") == 1
    assert 'perpetune_release_swaps_total{task=""}' not in text
    alone = standing_tasks.get("/tasks/intents/metrics").text
    assert 'perpetune_release_serving{version="1"} 1.0' in alone


def test_a_page_may_read_what_its_task_allows(start_tasks: Start) -> None:
    page = "https://app.example.com"
    open_to_page = PARAMS.model_copy(update={"cors_origins": (page,)})
    gateway = start_tasks(params={"reviews": open_to_page})
    preflight = httpx.options(
        gateway.url + CHAT, headers={"origin": page, "access-control-request-method": "POST"}, timeout=10
    )
    assert preflight.headers["access-control-allow-origin"] == page
    body = {"messages": [{"role": "user", "content": "hello"}]}
    allowed = {
        model: httpx.post(gateway.url + CHAT, json={"model": model, **body}, headers={"origin": page}).headers.get(
            "access-control-allow-origin"
        )
        for model in ("reviews", "intents", "tickets")
    }
    assert allowed == {"reviews": page, "intents": None, "tickets": page}
    strange = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(gateway.url + CHAT, headers=strange).headers


def test_each_task_has_its_log(start_tasks: Start) -> None:
    gateway = start_tasks()
    gateway.ask("reviews", "one")
    gateway.ask("intents", "two")
    for task, text in (("reviews", "one"), ("intents", "two")):
        rows = recent_predictions(gateway.log(task), task, limit=None)
        assert [(row.task, row.version, row.input) for row in rows] == [(task, "1", text)]


def test_other_pages_are_those_of_one_task(standing_tasks: Any) -> None:
    assert "/v1/chat/completions" in standing_tasks.get("/docs").text
    assert "/v1/feedback" in standing_tasks.get("/openapi.json").json()["paths"]
    assert error_of(standing_tasks.get("/nothing"), 404)["code"] == "unknown_url"
    assert standing_tasks.get(CHAT).status_code == 405


def test_a_gateway_that_stops_says_so_for_each_task(start_tasks: Start) -> None:
    gateway = start_tasks()
    drain(gateway.app)
    for path in ("/readyz", "/tasks/reviews/readyz", "/tasks/intents/readyz"):
        reply = gateway.get(path)
        assert (reply.status_code, reply.json()["draining"]) == (503, True)
    answer = gateway.ask("intents")
    assert (answer.status_code, answer.headers["connection"]) == (200, "close"), "requests are answered still"


def test_stopping_closes_the_engine_after_all_tasks(tasks_gateway: Callable[..., Any], tmp_path: Path) -> None:
    class Noting(FakeEngine):
        async def close(self) -> None:
            closed.append(sorted(self.loaded))
            await super().close()

    closed: list[list[str]] = []
    with tasks_gateway(tmp_path, engine=Noting()) as gateway:
        gateway.ask("reviews", "kept")
        assert closed == []
    assert closed == [["intents@1", "reviews@1"]], "once, and not by one of the tasks"
    log = open_log(f"sqlite:///{tmp_path / 'reviews.db'}")
    assert [row.input for row in recent_predictions(log, "reviews", limit=None)] == ["kept"]
    log.dispose()

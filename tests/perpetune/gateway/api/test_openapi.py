"""What /openapi.json says is so: requests made from it never break the gateway, and its replies match the description."""

from __future__ import annotations

import time
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.slow

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def described(standing: Any) -> Any:
    return schemathesis.openapi.from_url(f"{standing.url}/openapi.json")


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("POST", "/v1/chat/completions", POSITIVE),
        ("POST", "/v1/chat/completions", NEGATIVE),
        ("POST", "/v1/responses", POSITIVE),
        ("POST", "/v1/responses", NEGATIVE),
        ("POST", "/v1/completions", POSITIVE),
        ("POST", "/v1/completions", NEGATIVE),
        ("POST", "/v1/feedback", POSITIVE),
        ("POST", "/v1/feedback", NEGATIVE),
        ("POST", "/v1/release/check", POSITIVE),
        ("GET", "/v1/models", POSITIVE),
        ("GET", "/v1/models/{model}", POSITIVE),
        ("GET", "/readyz", POSITIVE),
        ("GET", "/metrics", POSITIVE),
    ],
)
def test_requests_made_from_the_description(described: Any, method: str, path: str, mode: Any) -> None:
    statuses: set[int] = set()
    chat = path == "/v1/chat/completions"

    @given(described[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=60 if chat else 10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        if chat and mode is POSITIVE:
            case.body["model"] = "reviews"  # or hardly a request would come as far as the engine
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    if chat:
        assert (200 in statuses) == (mode is POSITIVE), statuses


def schema_of(description: Any, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": description["components"]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 2, "logprobs": True, "top_logprobs": 3},
        {"stop": "x", "temperature": 1.5, "top_p": 0.5, "seed": 1},
        {"stop": ["x", "y"], "max_tokens": 3},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"metadata": {"a": "b"}, "store": False, "user": "ann"},
    ],
)
def test_what_is_answered_is_described(standing: Any, more: dict[str, object]) -> None:
    description = standing.get("/openapi.json").json()
    request = {"model": "reviews", "messages": HELLO, **more}
    jsonschema.validate(request, schema_of(description, "ChatRequest"))
    reply = standing.ask("hello", **more)
    assert reply.status_code == 200
    jsonschema.validate(reply.json(), schema_of(description, "Completion"))


@pytest.mark.parametrize(
    "more",
    [
        {"n": 0},
        {"n": 9},
        {"stop": [""]},
        {"temperature": 3},
        {"top_logprobs": 21},
        {"logit_bias": {"1": 1}},
        {"messages": []},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"response_format": {"type": "xml"}},
    ],
)
def test_what_is_refused_is_not_described(standing: Any, more: dict[str, object]) -> None:
    description = standing.get("/openapi.json").json()
    request: dict[str, Any] = {"model": "reviews", "messages": HELLO, **more}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(request, schema_of(description, "ChatRequest"))
    reply = standing.post("/v1/chat/completions", request)
    assert reply.status_code == 400
    jsonschema.validate(reply.json(), schema_of(description, "ErrorReply"))


def test_every_path_is_described_with_its_errors(standing: Any) -> None:
    paths = standing.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/models", "/v1/models/{model}", "/v1/feedback", "/healthz"} <= set(paths)
    for path, operations in paths.items():
        for operation in operations.values():
            error = operation["responses"]["default"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorReply"}, path
    chat = paths["/v1/chat/completions"]["post"]["responses"]
    assert set(chat["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {"400", "404", "413", "429", "500", "503", "504"} <= set(chat)
    assert "422" not in chat


def test_models_have_a_time(standing: Any) -> None:
    for model in standing.get("/v1/models").json()["data"]:
        assert time.time() - 600 < model["created"] <= time.time() + 1

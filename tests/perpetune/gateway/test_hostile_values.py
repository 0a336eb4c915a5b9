"""Values that JSON or Python allow and a reply, a database or a schema cannot hold: an error of the client, not of the server."""

from __future__ import annotations

import json

import httpx
import pytest
from gateways import Gateway

DIGITS = "9" * 5000
CHAT = "/v1/chat/completions"
HELLO = '"model": "reviews", "messages": [{"role": "user", "content": "hello"}]'
OTHER_NUMBERS = ["NaN", "-Infinity", "1e400", DIGITS]


def post(gateway: Gateway, path: str, body: str) -> httpx.Response:
    head = {"content-type": "application/json"}
    return httpx.post(gateway.url + path, content=body.encode(), headers=head, timeout=30)


def refused(reply: httpx.Response) -> bool:
    """Whether it is the client's error, in JSON without NaN."""
    json.loads(reply.text, parse_constant=lambda constant: pytest.fail(f"{constant} in {reply.text}"))
    return reply.status_code in (400, 404)


@pytest.mark.parametrize("value", [*OTHER_NUMBERS, '"\\ud83d"', '"\\u0000"', "{}", "[[]]", "null", "1e-400"])
@pytest.mark.parametrize("form", ["%s", "[%s]", '[%s, {"request_id": "x", "score": 1}]'])
def test_an_id_of_feedback(standing: Gateway, value: str, form: str) -> None:
    assert refused(post(standing, "/v1/feedback", form % f'{{"request_id": {value}, "score": 1}}'))


@pytest.mark.parametrize("name", ["\\ud83d", "\\u0000", "x"])
def test_a_field_that_feedback_does_not_have(standing: Gateway, name: str) -> None:
    assert refused(post(standing, "/v1/feedback", f'{{"request_id": "x", "score": 1, "{name}": 1}}'))


def test_feedback_nested_as_deeply_as_python_reads(standing: Gateway) -> None:
    for depth in range(850, 1000):
        nested = "[" * depth + "]" * depth
        assert refused(post(standing, "/v1/feedback", f'[{{"request_id": {nested}}}]')), depth


@pytest.mark.parametrize("value", OTHER_NUMBERS)
def test_numbers_in_a_schema(standing: Gateway, value: str) -> None:
    schema = f'{{"type": "object", "properties": {{"a": {{"const": {value}}}}}}}'
    function = f'{{"name": "f", "parameters": {schema}}}'
    for more in (
        f'"response_format": {{"type": "json_schema", "json_schema": {{"name": "n", "schema": {schema}}}}}',
        f'"tools": [{{"type": "function", "function": {function}}}]',
    ):
        assert refused(post(standing, CHAT, f"{{{HELLO}, {more}}}"))


@pytest.mark.parametrize("value", OTHER_NUMBERS)
def test_numbers_in_metadata(standing: Gateway, value: str) -> None:
    assert refused(post(standing, CHAT, f'{{{HELLO}, "metadata": {{"a": {value}}}}}'))
    asked = f'{{"model": "reviews", "input": "hello", "metadata": {{"a": {value}}}}}'
    assert refused(post(standing, "/v1/responses", asked))


def test_a_number_of_many_digits_beside_prompts(standing: Gateway) -> None:
    assert refused(post(standing, "/v1/completions", f'{{"model": "reviews", "prompt": ["a", "b"], "x": {DIGITS}}}'))

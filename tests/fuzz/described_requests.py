"""Requests that schemathesis makes from the gateway's own OpenAPI description, valid ones and invalid ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import schemathesis
from hostile_json import TASK
from hypothesis import HealthCheck, Phase, given, seed, settings
from replies import Reply
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

_CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
_MOST_A_ROUND = 40


def send_described(url: str, key: str, number: int, count: int, note: Callable[[str, Reply, str | None], None]) -> int:
    """Send at least `count` requests of seed `number` to all paths in turn; returns how many.

    `note` gets of each its name, the reply, and what schemathesis finds wrong with it.
    """
    headers = {"authorization": f"Bearer {key}"}
    described: Any = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    operations = [found.ok() for found in described.get_all_operations()]
    sent = 0
    while sent < count:
        for operation in operations:
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
                most = min(_MOST_A_ROUND, max(1, (count - sent) // 4))
                sent += _send_some(operation, mode, headers, number, most, note) if sent < count else 0
        number += 1
    return sent


def _send_some(
    operation: Any,
    mode: Any,
    headers: dict[str, str],
    number: int,
    most: int,
    note: Callable[[str, Reply, str | None], None],
) -> int:
    sent = 0

    @seed(number)
    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=most,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        nonlocal sent
        if isinstance(case.body, dict) and "model" in case.body and sent % 2:
            case.body["model"] = TASK  # or hardly a request would come as far as the engine
        reply = case.call(headers={**(case.headers or {}), **headers})
        sent += 1
        try:
            case.validate_response(reply, checks=_CHECKS)
            fault = None
        except FailureGroup as found:
            fault = str(found)[:2000]
        known = {name.lower(): values[0] for name, values in reply.headers.items()}
        note(
            f"{operation.label} {mode.value}",
            Reply(reply.status_code, known, reply.content, operation.method.upper()),
            fault,
        )

    try:
        ask()
    except Exception as fault:  # hypothesis finds nothing to send, such as an invalid request of a path without fields
        if type(fault).__name__ not in ("Unsatisfiable", "OperationSchemaError", "InvalidSchema"):
            raise
    return sent

"""The reference of the HTTP API and of its Prometheus metrics, from the gateway itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from json_schema import Schema, default_text, type_text
from markdown_text import code, linked, table

from perpetune.gateway.app import create_app
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.params import load_params
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

PAGE = "reference/http-api.md"
METRICS = "reference/metrics.md"
_METHODS = ("get", "post", "put", "delete")


def openapi(params: Path) -> dict[str, Any]:
    """What the gateway of this params.yaml answers to `GET /openapi.json`."""
    serve = load_params(params).serve
    app = create_app(
        "TASK",
        engine=FakeEngine(),
        source=FakeSource([], champion=None),
        log=sqlalchemy.create_engine("sqlite://"),
        params=serve,
        max_new_tokens=128,
    )
    return app.openapi()


def api_page(described: Schema) -> str:
    parts = [
        "# HTTP API",
        "The gateway speaks OpenAI's chat completions. Generated from its OpenAPI description, which a running gateway "
        "serves at `/openapi.json`; `/docs` of the gateway lists it. docs/guides/serving.md says what the "
        "fields do.",
    ]
    for path, methods in described["paths"].items():
        parts += [_operation(path, method, methods[method]) for method in _METHODS if method in methods]
    parts += ["## Bodies"]
    parts += [_model(name, model) for name, model in sorted(described["components"]["schemas"].items())]
    return linked("\n\n".join(parts) + "\n", PAGE)


def _operation(path: str, method: str, operation: Schema) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    parts = [f"## {method.upper()} {path}".replace("{", "&#123;").replace("}", "&#125;")]
    parts += [operation.get("description", "")]
    parts += [f"Body: {_reference(content.get('schema', {}))}" for content in body.values()]
    parameters = [
        (code(each["name"]), each["in"], type_text(each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", ())
    ]
    parts += [table(["Parameter", "In", "Type", "Meaning"], parameters)] if parameters else []
    parts += [table(["Status", "Meaning", "Body"], _responses(operation))]
    return "\n\n".join(part for part in parts if part)


def _responses(operation: Schema) -> Iterator[tuple[str, str, str]]:
    for status, response in operation["responses"].items():
        bodies = [
            f"{_reference(content.get('schema', {}))} ({kind})" for kind, content in response.get("content", {}).items()
        ]
        yield str(status), response.get("description", ""), ", ".join(bodies)


def _model(name: str, model: Schema) -> str:
    parts = [f"### {name}", " ".join(str(model.get("description", "")).split())]
    rows = [
        (code(field), _reference(schema), _required(schema, field in model.get("required", ())), _meaning(schema))
        for field, schema in model.get("properties", {}).items()
    ]
    described = any(row[3] for row in rows)
    header = ["Field", "Type", "Default", "Meaning"][: 4 if described else 3]
    parts += [table(header, [row[: len(header)] for row in rows])] if rows else [_reference(model)]
    return "\n\n".join(part for part in parts if part)


def _required(schema: Schema, required: bool) -> str:
    text = default_text(schema, required)
    return text if text in ("", "required") else code(text)


def _meaning(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split())


def _reference(schema: Schema) -> str:
    """The type, with models as links to their tables."""
    text = type_text(schema)
    for part in sorted(set(_names(schema))):
        text = text.replace(f"[{part}]", f"[{part}](#{part.lower()})")
    return text


def _names(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield str(schema["$ref"]).rpartition("/")[2]
        for value in schema.values():
            yield from _names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _names(value)


def example(described: Schema) -> str:
    """The description as a file that other tools can read."""
    return json.dumps(described, indent=1)


def metrics() -> tuple[tuple[str, str, str, str], ...]:
    """Name, type, labels and meaning of what `/metrics` tells."""
    return tuple(
        (name, collector._type, ", ".join(collector._labelnames), collector._documentation)
        for name, collector in _collectors()
    )


def _collectors() -> Iterator[tuple[str, Any]]:
    """prometheus_client has no public way to list collectors that have no sample yet."""
    seen: set[int] = set()
    collectors: dict[str, Any] = dict(Metrics().registry._names_to_collectors)
    for name, collector in collectors.items():
        if id(collector) not in seen and hasattr(collector, "_documentation"):
            seen.add(id(collector))
            suffix = "_total" if collector._type == "counter" and not name.endswith("_total") else ""
            yield name + suffix, collector


def metrics_page() -> str:
    rows = [(code(name), kind, labels, text) for name, kind, labels, text in metrics()]
    text = (
        "# Prometheus metrics\n\nWhat `GET /metrics` of the gateway tells. See docs/guides/observability.md.\n\n"
        + table(["Metric", "Type", "Labels", "Meaning"], rows)
    )
    return linked(text, METRICS)

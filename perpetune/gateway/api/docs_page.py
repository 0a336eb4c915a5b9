"""`/docs`: the API's operations on one page, without scripts or anything from another host."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
td{{padding:.3rem .8rem .3rem 0;vertical-align:top}}</style>
<h1>{title}</h1>
<p>OpenAI's chat API, with feedback. Any OpenAI client works with the base URL <code>/v1</code> of this server.
The whole description, for Swagger UI, Postman or a generator of clients: <a href="openapi.json">openapi.json</a>.</p>
<table>
{rows}
</table></html>
"""
_ROW = "<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}</td></tr>"


def add_docs_page(app: FastAPI) -> None:
    """Add `GET /docs`. Swagger UI, FastAPI's own page, is loaded from a public CDN, which many networks block."""

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        rows = [
            _ROW.format(method=method.upper(), path=escape(path), summary=escape(_summary(operation)))
            for path, operations in app.openapi()["paths"].items()
            for method, operation in operations.items()
        ]
        return HTMLResponse(_PAGE.format(title=escape(app.title), rows="\n".join(rows)))


def _summary(operation: dict[str, Any]) -> str:
    return str(operation.get("description") or operation.get("summary") or "")

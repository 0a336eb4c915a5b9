"""MkDocs calls these while it builds the site: generated pages are added, links outside of it are checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from api_page import METRICS, api_page, example, metrics_page, openapi
from api_page import PAGE as API
from benchmarks_page import benchmark_pages, benchmark_plots
from chaos_page import with_rounds
from commands_page import PAGE as COMMANDS
from commands_page import commands_page
from decisions_page import PAGE as DECISIONS
from decisions_page import decisions_page
from events_page import PAGE as EVENTS
from events_page import events_page
from links import broken_outside, foreign_assets
from markdown_text import DOCS, ROOT
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mlflow_page import PAGE as MLFLOW
from mlflow_page import mlflow_page
from settings_page import ENVIRONMENT, environment_page, settings_page
from settings_page import PAGE as SETTINGS

log = logging.getLogger("mkdocs.hooks.perpetune")
_DIAGRAM = re.compile(r'<img alt="([^"]*)" src="[^"]*?(diagrams/[\w-]+\.svg)"[^>]*>')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the parts of the navigation that follow from files."""
    filled = {
        "BENCHMARKS": [name for name, _ in benchmark_pages()],
        "DECISIONS": [DECISIONS, *(f"decisions/{path.name}" for path in sorted(DOCS.glob("decisions/[0-9]*.md")))],
    }
    config.nav = [{title: filled.get(str(below), below)} for each in config.nav or () for title, below in each.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, text in _generated():
        files.append(File.generated(config, name, content=text))
    for name, path in benchmark_plots():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for fault in broken_outside():
        log.warning(fault)
    return files


def _generated() -> Iterator[tuple[str, str]]:
    described = openapi(ROOT / "params.yaml")
    yield SETTINGS, settings_page()
    yield ENVIRONMENT, environment_page()
    yield COMMANDS, commands_page()
    yield API, api_page(described)
    yield "reference/openapi.json", example(described)
    yield METRICS, metrics_page()
    yield EVENTS, events_page()
    yield MLFLOW, mlflow_page()
    yield DECISIONS, decisions_page()
    yield "changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    yield from benchmark_pages()


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Results of the last run are put into the page that explains them."""
    return with_rounds(markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Diagrams are put into the page itself, so that they take the colours of its light or dark scheme."""
    return _DIAGRAM.sub(lambda found: _inline(found[1], DOCS / found[2]), html)


def _inline(title: str, path: Path) -> str:
    svg = path.read_text(encoding="utf-8")
    labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    return f'<div class="diagram-frame">{labelled}</div>'


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    for asset in foreign_assets(output):
        log.warning("%s would load %s", page.file.src_uri, asset)
    return output

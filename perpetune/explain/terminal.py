"""A story on a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from perpetune.curation.difference import Count, Difference
from perpetune.evaluation.systems import title
from perpetune.explain import wording
from perpetune.explain.version_report import Scores, VerdictSummary, VersionReport

TERMS = "docs/verdicts.md"
TITLES = {"splits": "split", "sources": "source", "labels": "label"}


def as_dict(story: VersionReport) -> dict[str, Any]:
    """All of it, for JSON."""
    plain = asdict(story)
    plain["verdicts"] = [
        {"decision": told.decision.model_dump(mode="json"), "numbers": asdict(told.numbers)} for told in story.verdicts
    ]
    return {
        **plain,
        "outcome": story.outcome,
        "reason": story.reason,
        "line": story.line,
        "next": list(story.next_steps),
    }


def show_story(story: VersionReport, console: Console) -> None:
    """The verdict first, then what led to it and what came of it."""
    aliases = f" ({', '.join(story.aliases)})" if story.aliases else ""
    console.print(f"[bold]{escape(story.task)}, version {escape(story.version)}{aliases}: {story.outcome}[/]")
    for sentence in filter(None, (story.line, story.reason)):
        _say(console, sentence)
    for step in story.next_steps:
        _say(console, f"next: {step}")
    _head(console, "What triggered it")
    _say(console, wording.trigger(story.trigger))
    _show_data(story, console)
    _head(console, "How it was trained")
    _table(console, story.training.facts.items())
    for scores in story.scores:
        _show_scores(scores, console)
    for told in story.verdicts:
        _show_verdict(told, console)
    if story.verdicts:
        _say(console, f"What the terms mean: {TERMS}")
    _head(console, "Who approved it")
    _say(console, wording.approval(story))
    _head(console, "What it costs")
    for cost in story.costs or ("Nothing is on record.",):
        _say(console, cost)
    _head(console, "What became of it")
    _table(console, ((wording.when(event.time), event.what, event.why) for event in story.events))
    _head(console, "How to repeat it")
    for command in story.repeat.commands:
        _say(console, command)
    _table(console, story.repeat.ids.items())
    _head(console, "Where to read on")
    _table(console, story.links.items())


def _show_data(story: VersionReport, console: Console) -> None:
    data = story.data
    _head(console, "What it was trained on")
    _say(console, wording.data(data))
    if data.difference is None:
        return
    _say(console, wording.difference(data))
    for name, counts in _kinds(data.difference):
        _show_counts(TITLES[name], counts, console)


def _kinds(found: Difference) -> Iterable[tuple[str, Mapping[str, Count]]]:
    return [(name, counts) for name in TITLES if (counts := getattr(found, name))]


def _show_counts(title: str, counts: Mapping[str, Count], console: Console) -> None:
    table = _grid(f"rows by {title}", "before", "now", "")
    for name, count in list(counts.items())[: wording.MOST_KINDS]:
        table.add_row(escape(name), f"{count.before:,}", f"{count.after:,}", wording.change(count))
    console.print(Padding(table, (0, 0, 0, 2)))
    if len(counts) > wording.MOST_KINDS:
        _say(console, f"and {len(counts) - wording.MOST_KINDS} more")


def _show_scores(scores: Scores, console: Console) -> None:
    _head(console, wording.scores_title(scores))
    table = _grid("system", "score", f"{scores.level:.0%} interval", "rows")
    for system, found in reversed(list(scores.systems.items())):
        table.add_row(title(system), *wording.score(found, scores.metric), f"{found.n:,}")
    console.print(Padding(table, (0, 0, 0, 2)))


def _show_verdict(told: VerdictSummary, console: Console) -> None:
    decision = told.decision
    _head(console, f"{decision.kind.capitalize()}, {wording.when(decision.time)}: {decision.outcome}")
    for reason in decision.reasons:
        _say(console, reason)
    console.print(Padding(f"[dim]Rule: {escape(decision.rule)}[/]", (0, 0, 0, 2)))
    if told.numbers.measured:
        table = _grid("number", "value", "interval", "rows", "limit")
        for each in told.numbers.measured:
            table.add_row(escape(each.name), *wording.columns(each))
        console.print(Padding(table, (0, 0, 0, 2)))
    _table(console, told.numbers.facts.items())


def _head(console: Console, text: str) -> None:
    console.print(f"\n[bold cyan]{escape(text)}[/]")


def _say(console: Console, text: str) -> None:
    console.print(Padding(escape(text), (0, 0, 0, 2)))


def _grid(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _table(console: Console, rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*map(escape, row))
    if table.row_count:
        console.print(Padding(table, (0, 0, 0, 2)))

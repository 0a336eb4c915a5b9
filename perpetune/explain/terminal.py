"""A version report on a terminal, and as JSON."""

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

TERMS = "docs/guides/verdicts.md"
TITLES = {"splits": "split", "sources": "source", "labels": "label"}


def as_dict(report: VersionReport) -> dict[str, Any]:
    """The report as a JSON-serialisable dict."""
    plain = asdict(report)
    plain["verdicts"] = [
        {"decision": verdict.decision.model_dump(mode="json"), "numbers": asdict(verdict.numbers)}
        for verdict in report.verdicts
    ]
    return {
        **plain,
        "outcome": report.outcome,
        "reason": report.reason,
        "line": report.line,
        "next": list(report.next_steps),
    }


def show_report(report: VersionReport, console: Console) -> None:
    """Print the report, the newest verdict first."""
    aliases = f" ({', '.join(report.aliases)})" if report.aliases else ""
    console.print(f"[bold]{escape(report.task)}, version {escape(report.version)}{aliases}: {report.outcome}[/]")
    for sentence in filter(None, (report.line, report.reason)):
        _print(console, sentence)
    for step in report.next_steps:
        _print(console, f"next: {step}")
    _heading(console, "Trigger")
    _print(console, wording.trigger(report.trigger))
    _show_data(report, console)
    _heading(console, "Training")
    if not report.training.facts:
        _print(console, wording.UNTRAINED)
    _table(console, report.training.facts.items())
    for scores in report.scores:
        _show_scores(scores, console)
    for verdict in report.verdicts:
        _show_verdict(verdict, console)
    if report.verdicts:
        _print(console, f"What the terms mean: {TERMS}")
    _heading(console, "Approval")
    _print(console, wording.approval(report))
    _heading(console, "Costs")
    for cost in report.costs or ("No costs are recorded.",):
        _print(console, cost)
    _heading(console, "History")
    _table(console, ((wording.when(event.time), event.what, event.why) for event in report.events))
    _heading(console, "Reproduction")
    for command in report.repeat.commands:
        _print(console, command)
    _table(console, report.repeat.ids.items())
    _heading(console, "Links")
    _table(console, report.links.items())


def _show_data(report: VersionReport, console: Console) -> None:
    data = report.data
    _heading(console, "Data")
    _print(console, wording.data(data))
    if data.difference is None:
        return
    _print(console, wording.difference(data))
    for name, counts in _count_tables(data.difference):
        _show_counts(TITLES[name], counts, console)


def _count_tables(found: Difference) -> Iterable[tuple[str, Mapping[str, Count]]]:
    return [(name, counts) for name in TITLES if (counts := getattr(found, name))]


def _show_counts(title: str, counts: Mapping[str, Count], console: Console) -> None:
    table = _grid(f"rows by {title}", "before", "now", "")
    for name, count in list(counts.items())[: wording.MAX_ROWS]:
        table.add_row(escape(name), f"{count.before:,}", f"{count.after:,}", wording.change(count))
    console.print(Padding(table, (0, 0, 0, 2)))
    if len(counts) > wording.MAX_ROWS:
        _print(console, f"and {len(counts) - wording.MAX_ROWS} more")


def _show_scores(scores: Scores, console: Console) -> None:
    _heading(console, wording.scores_title(scores))
    table = _grid("system", "score", f"{scores.level:.0%} interval", "rows")
    for system, found in reversed(list(scores.systems.items())):
        table.add_row(title(system), *wording.score(found, scores.metric), f"{found.n:,}")
    console.print(Padding(table, (0, 0, 0, 2)))


def _show_verdict(verdict: VerdictSummary, console: Console) -> None:
    decision = verdict.decision
    _heading(console, f"{decision.kind.capitalize()}, {wording.when(decision.time)}: {decision.outcome}")
    for reason in decision.reasons:
        _print(console, reason)
    console.print(Padding(f"[dim]Rule: {escape(decision.rule)}[/]", (0, 0, 0, 2)))
    if verdict.numbers.measured:
        table = _grid("number", "value", "interval", "rows", "limit")
        for each in verdict.numbers.measured:
            table.add_row(escape(each.name), *wording.columns(each))
        console.print(Padding(table, (0, 0, 0, 2)))
    _table(console, verdict.numbers.facts.items())


def _heading(console: Console, text: str) -> None:
    console.print(f"\n[bold cyan]{escape(text)}[/]")


def _print(console: Console, text: str) -> None:
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

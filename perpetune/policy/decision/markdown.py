"""A decision record as Markdown, for Prefect's artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perpetune.policy.decision.next_step import next_steps
from perpetune.policy.decision.record import Decision


def as_markdown(decision: Decision, links: Mapping[str, str] | None = None) -> str:
    """The record as Markdown: verdict, reasons, next steps, evidence tables, ids, and `links` (title to URL)."""
    ids = [[_words(name), f"`{value}`"] for name, value in decision.ids if value is not None]
    parts = [
        f"# {decision.kind.capitalize()} of {decision.task}: {decision.outcome}",
        f"**{decision.reason}**",
        "\n".join(f"- {reason}" for reason in decision.reasons[1:]),
        _next(decision),
        f"Decided {decision.time:%Y-%m-%d %H:%M %Z} by the rule: {decision.rule}",
        "## Evidence",
        *_tables(decision.evidence),
        "## Ids" if ids else "",
        _table(["id", "value"], ids),
        " · ".join(f"[{title}]({address})" for title, address in (links or {}).items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _next(decision: Decision) -> str:
    steps = next_steps(decision)
    return "## What to do next\n\n" + "\n".join(f"- {step}" for step in steps) if steps else ""


def _tables(evidence: Mapping[str, Any]) -> Iterator[str]:
    """A table of the single values, one table for parts with the same fields, then nested parts."""
    parts = {name: value for name, value in evidence.items() if isinstance(value, Mapping) and not _is_interval(value)}
    single = {name: value for name, value in evidence.items() if name not in parts and value is not None}
    if single:
        yield _table(["measure", "value"], [[_words(name), _cell(value)] for name, value in single.items()])
    flat = {name: part for name, part in parts.items() if not _has_parts(part)}
    for fields in dict.fromkeys(tuple(part) for part in flat.values() if part):
        rows = {name: part for name, part in flat.items() if tuple(part) == fields}
        yield _table(
            ["", *map(_words, fields)], [[_words(name), *map(_cell, part.values())] for name, part in rows.items()]
        )
    for name, part in parts.items():
        if name not in flat:
            yield f"### {_words(name).capitalize()}"
            yield from _tables(part)


def _has_parts(part: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) and not _is_interval(value) for value in part.values())


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{_cell(value['low'])} to {_cell(value['high'])} ({value['level']:.0%})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"low", "high", "level"}


def _words(name: str) -> str:
    return name.replace("_", " ")

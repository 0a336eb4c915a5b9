"""What the rounds of `make chaos` showed, from benchmarks/results/chaos.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markdown_text import ROOT, table

RESULT = ROOT / "benchmarks" / "results" / "chaos.json"
MARK = "<!-- what chaos saw -->"
_HEADER = ("round", "faults", "meanwhile", "requests", "failed", "labels acknowledged", "lost")


def with_rounds(markdown: str) -> str:
    """The page with the sums and the rounds of the last run in the place of the mark."""
    if MARK not in markdown:
        return markdown
    seen = _seen(json.loads(RESULT.read_text(encoding="utf-8"))) if RESULT.exists() else "No run has been kept yet."
    return markdown.replace(MARK, seen)


def _seen(record: Mapping[str, Any]) -> str:
    details = record["details"]
    rounds = details["rounds"]
    title = (
        f"{len(rounds)} rounds of `SEED={details['seed']}` in {record['seconds'] / 60:.0f} minutes on {record['device']}, "
        f"{details['postgres']}:"
    )
    sums = table(("", ""), ((name, f"{value:,}") for name, value in _sums(rounds).items()))
    last = details["last"]
    checks = (
        "The run was interrupted before its last checks."
        if last is None
        else "In the end:\n\n"
        + table(("check", "holds"), ((name, _holds(wrong)) for name, wrong in last["wrong"].items()))
    )
    return "\n\n".join([title, sums, checks, table(_HEADER, map(_row, rounds))])


def _sums(rounds: list[dict[str, Any]]) -> dict[str, int]:
    def total(name: str) -> int:
        return sum(each[name] for each in rounds)

    return {
        "faults": sum(len(each["faults"]) for each in rounds),
        "requests": total("answered") + total("failed"),
        "failed": total("failed"),
        "failed while an engine and a gateway lived": sum(len(each["failed_while_served"]) for each in rounds),
        "answered after the other gateway was asked": total("retried"),
        "answers lost": total("lost_answers"),
        "labels acknowledged": total("acknowledged"),
        "labels lost": total("lost_labels"),
        "rounds after which something did not hold": sum(bool(each["problems"]) for each in rounds),
    }


def _holds(wrong: list[str]) -> str:
    return "**no**: " + "; ".join(wrong) if wrong else "yes"


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    operation = f"{each['operation']}: {each['ended']}"
    problems = [*each["problems"], *each["failed_while_served"]]
    return (
        str(each["number"]),
        ", ".join(each["faults"]),
        operation if not problems else f"{operation}; **{'; '.join(problems)}**",
        f"{each['answered'] + each['failed']:,}",
        str(each["failed"]),
        f"{each['acknowledged']:,}",
        str(each["lost_answers"] + each["lost_labels"]),
    )

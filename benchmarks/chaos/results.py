"""The file that keeps what was seen, written anew after each round, so that an interrupted run still shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from shared import record

from chaos.report import Report, RoundResult

NAME, ROUNDS = "chaos", 100


def write(report: Report, folder: Path) -> Path:
    """`chaos.json` in the folder, in the form of benchmarks/shared/record.py."""
    details = {
        "seed": report.seed,
        "postgres": report.postgres,
        "restarts": report.restarts,
        "rounds": [asdict(each) for each in report.rounds],
        "last": report.last and asdict(report.last),
    }
    return record.write(NAME, list(_claims(report)), details, report.seconds, folder)


def earlier(folder: Path, seed: int, first: int) -> list[RoundResult]:
    """The rounds before `first` that a run of this seed has left in the folder."""
    path = folder / f"{NAME}.json"
    if first == 1 or not path.exists():
        return []
    details = json.loads(path.read_text(encoding="utf-8"))["details"]
    if details["seed"] != seed:
        return []
    return [_round(each) for each in details["rounds"] if each["number"] < first]


def _round(values: dict[str, object]) -> RoundResult:
    return RoundResult(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})  # type: ignore[arg-type]


def _claims(report: Report) -> Iterator[record.Claim]:
    checks = report.last.wrong if report.last else {}
    rounds = len(report.rounds)
    yield _claim("rounds", rounds, ROUNDS, rounds >= ROUNDS)
    yield _none("acknowledged answers lost", report.lost_answers)
    yield _none("acknowledged labels lost", report.lost_labels)
    yield _none("requests failed while an engine and a gateway lived", len(report.failed_while_served))
    yield _none("rounds after which something did not hold", sum(not each.holds for each in report.rounds))
    held = sum(not problems for problems in checks.values())
    yield _claim("last checks that hold", held, len(checks), bool(checks) and held == len(checks))


def _none(claim: str, value: int) -> record.Claim:
    return _claim(claim, value, 0, value == 0)


def _claim(claim: str, value: int, goal: int, holds: bool) -> record.Claim:
    return record.Claim(claim, value, (value, value), goal, holds)

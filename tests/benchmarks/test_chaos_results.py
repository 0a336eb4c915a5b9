"""What `make chaos` keeps of its rounds, and what the guide shows of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import chaos_page
import pytest
from chaos import results
from chaos.report import LastChecks, Report, RoundResult

ROUND = RoundResult(
    number=1,
    faults=("kill s3", "clock +3600 s postgres"),
    operation="watch",
    ended="completed",
    answered=90,
    failed=1,
    failed_while_served=(),
    retried=4,
    acknowledged=60,
    unacknowledged=0,
    lost_answers=0,
    lost_labels=0,
    healthy_after=14.5,
    seconds=31.0,
    problems=(),
)
HOLDS = LastChecks({"decisions are recorded once": [], "the audit log is intact": []}, 60.0)


def report(*rounds: RoundResult, last: LastChecks | None = None) -> Report:
    return Report(7, {"kill": ("s3",)}, "postgres (PostgreSQL) 15.14", list(rounds), {"s3": 1}, last)


def saved(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "chaos.json").read_text(encoding="utf-8"))
    return found


def claims(folder: Path) -> dict[str, bool]:
    return {each["claim"]: each["holds"] for each in saved(folder)["claims"]}


def test_an_interrupted_run_is_continued_with_the_rounds_that_it_has_left(tmp_path: Path) -> None:
    rounds = [replace(ROUND, number=number) for number in (1, 2, 3)]
    results.write(report(*rounds), tmp_path)
    assert results.earlier(tmp_path, 7, first=3) == rounds[:2]
    assert results.earlier(tmp_path, 8, first=3) == []
    assert results.earlier(tmp_path, 7, first=1) == []


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (replace(ROUND, lost_answers=1), "acknowledged answers lost"),
        (replace(ROUND, lost_labels=1), "acknowledged labels lost"),
        (replace(ROUND, failed_while_served=("503",)), "requests failed while an engine and a gateway lived"),
        (replace(ROUND, problems=("there is no champion",)), "rounds after which something did not hold"),
    ],
)
def test_a_round_that_does_not_hold_is_told_by_its_claim(tmp_path: Path, broken: RoundResult, claim: str) -> None:
    rounds = [replace(ROUND, number=number) for number in range(1, 100)]
    results.write(report(*rounds, replace(ROUND, number=100), last=HOLDS), tmp_path)
    assert all(claims(tmp_path).values())
    found = report(*rounds, replace(broken, number=100), last=HOLDS)
    results.write(found, tmp_path)
    assert not found.holds
    assert not claims(tmp_path)[claim]


def test_a_run_without_its_last_checks_does_not_hold(tmp_path: Path) -> None:
    results.write(report(ROUND), tmp_path)
    assert not report(ROUND).holds
    assert not claims(tmp_path)["last checks that hold"]
    wrong = LastChecks({**HOLDS.wrong, "no flow run is left as running": ["flow run x is RUNNING"]}, 60.0)
    assert not report(ROUND, last=wrong).holds


def test_the_guide_shows_the_rounds_and_what_did_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos_page, "RESULT", tmp_path / "chaos.json")
    assert chaos_page.with_rounds(chaos_page.MARK) == "No run has been kept yet."
    bad = replace(ROUND, number=2, problems=("there is no champion",), lost_labels=3)
    wrong = LastChecks({"no flow run is left as running": ["flow run x is RUNNING"]}, 60.0)
    results.write(report(ROUND, bad, last=wrong), tmp_path)
    page = chaos_page.with_rounds(f"before\n\n{chaos_page.MARK}\n\nafter")
    assert "| 1 | kill s3, clock +3600 s postgres | watch: completed | 91 | 1 | 60 | 0 |" in page
    assert (
        "| 2 | kill s3, clock +3600 s postgres | watch: completed; **there is no champion** | 91 | 1 | 60 | 3 |" in page
    )
    assert "| no flow run is left as running | **no**: flow run x is RUNNING |" in page
    assert "| labels lost | 3 |" in page
    assert chaos_page.with_rounds("another page") == "another page"

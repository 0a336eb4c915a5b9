from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prefect.runtime import flow_run

from perpetune.policy.decision.record import Decision, Ids
from perpetune.tasks.verdict import log_verdict

REJECTED = Decision(
    kind="promotion",
    task="tickets",
    time=datetime(2026, 1, 2, tzinfo=UTC),
    outcome="reject",
    reasons=("On the recent holdout the challenger is not shown to be better than the champion: it is so.", "And so."),
    rule="A rule.",
    evidence={"recent": {"difference": 0.004, "interval": {"low": -0.012, "high": 0.02, "level": 0.95}, "rows": 400}},
    ids=Ids(model_version="3"),
)


def test_a_log_gets_the_verdict_and_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    log_verdict(REJECTED)
    assert capsys.readouterr().out.splitlines() == [
        "reject the challenger: +0.4 points (-1.2 to 2.0, n=400), no gain shown",
        "next: `perpetune tune --write`, or more examples with `perpetune ingest FILE`",
    ]


def test_a_verbose_run_tells_its_reasons_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_run, "parameters", {"verbose": True}, raising=False)
    log_verdict(REJECTED)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [*REJECTED.reasons, "rule: A rule."]
    assert sum(line.startswith("next: ") for line in lines) == 2

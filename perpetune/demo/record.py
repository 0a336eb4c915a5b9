"""What a demo records while it runs: its checks, refreshes and stages."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from perpetune.runtime.prefect_api import FlowRun


@dataclass(frozen=True)
class CheckSummary:
    """One check of the monitor: after how many requests, what it decided, whether inputs had drifted.

    `line` is its verdict in one line, `reason` the decisive sentence.
    """

    requests: int
    outcome: str
    reason: str
    inputs_drifted: bool
    run: FlowRun
    mlflow: str
    line: str = ""


@dataclass
class DemoRecord:
    """What has happened so far."""

    began: float = field(default_factory=time.time)
    turned_at: int = 0
    checks: list[CheckSummary] = field(default_factory=list)
    refreshes: list[FlowRun] = field(default_factory=list)
    swap_at: int | None = None
    stages: list[tuple[str, float]] = field(default_factory=list)

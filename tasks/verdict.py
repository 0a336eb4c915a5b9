"""Say a verdict in the flow's log: why, and what to do next."""

from __future__ import annotations

from perpetune.policy.decision.next_step import next_steps
from perpetune.policy.decision.record import Decision


def log_verdict(decision: Decision) -> None:
    print(f"{decision.outcome}: {' '.join(decision.reasons)}")
    log_next_steps(decision)


def log_next_steps(decision: Decision) -> None:
    for step in next_steps(decision):
        print(f"next: {step}")

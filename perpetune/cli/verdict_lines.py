"""How the commands print a verdict: one line, the reasons only with --verbose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from perpetune.cli.console import as_json
from perpetune.policy.decision.headline import headline
from perpetune.policy.decision.hosted import hosted_in
from perpetune.policy.decision.next_step import next_step, next_steps
from perpetune.policy.decision.record import Decision
from perpetune.runtime.prefect_api import FlowRun

NO_DECISION = ("unchanged: ", "nothing to check")  # how a run that decided nothing ends its log
NOTHING_TO_CHECK = "nothing to check: no champion has answered a request yet"


def verdict_of(decision: Decision | None, logged: Sequence[str]) -> str:
    """The verdict's line; for a run that decided nothing, the line of its log that says so."""
    if decision is not None:
        return headline(decision)
    return next((line for line in logged if line.startswith(NO_DECISION)), NOTHING_TO_CHECK)


def lines_of(decision: Decision, *, verbose: bool) -> Iterator[str]:
    """The verdict, then the next command, or with `verbose` all that the record says in words."""
    yield headline(decision)
    if (hosted := hosted_in(decision)) is not None and not verbose:
        yield hosted
    if verbose:
        yield from decision.reasons
        yield f"rule: {decision.rule}"
        yield from (f"next: {step}" for step in next_steps(decision))
    elif (step := next_step(decision)) is not None:
        yield f"next: {step}"


def unsaid(decision: Decision | None, logged: Sequence[str], *, verbose: bool) -> list[str]:
    """What a run's log has not said of its verdict: a log that was passed on says it all."""
    verdict = verdict_of(decision, logged)
    if verdict in logged:
        return []
    return list(lines_of(decision, verbose=verbose)) if decision else [verdict]


def run_as_json(decision: Decision | None, ended: FlowRun, logged: Sequence[str]) -> dict[str, Any]:
    """The run, its verdict in one line, all next steps and the whole record."""
    return {
        **asdict(ended),
        "verdict": verdict_of(decision, logged),
        "next": next_steps(decision) if decision else (),
        "decision": as_json(decision),
    }

"""Write a verdict into the flow's log: one line, and at most two more: the hosted model, the next command."""

from __future__ import annotations

from prefect.runtime import flow_run

from perpetune.policy.decision.headline import headline
from perpetune.policy.decision.hosted import hosted_in
from perpetune.policy.decision.next_step import next_step, next_steps
from perpetune.policy.decision.record import Decision


def log_verdict(decision: Decision) -> None:
    print(headline(decision))
    if (hosted := hosted_in(decision)) is not None:
        print(hosted)
    step = next_step(decision)
    if verbose():
        log_details(*decision.reasons, f"rule: {decision.rule}", *(f"next: {each}" for each in next_steps(decision)))
    elif step is not None:
        print(f"next: {step}")


def log_details(*lines: str) -> None:
    """Lines that only a run with `verbose` shows; the artifacts and MLflow hold them for all others."""
    if verbose():
        for line in lines:
            print(line)


def verbose() -> bool:
    """Whether this flow run was asked to tell its reasons too."""
    return bool(flow_run.parameters.get("verbose"))

"""The steps of the flow `refresh`, each a flow run of it that ends where the next one goes on."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.flows.refresh import Until


@dataclass(frozen=True)
class Step:
    """`until` is where the flow ends; None at its end. `computes` says that it wants a GPU."""

    name: str
    until: Until | None
    computes: bool


STEPS = (
    Step("curate", "curate", computes=False),
    Step("train", "train", computes=True),
    # A decision is carried out by the process that made it: evaluate, register, decide and release are one step.
    Step("evaluate", None, computes=True),
)


def command(step: Step, address: str) -> list[str]:
    """The command of the step's container."""
    return ["python", "-m", "perpetune.flows.remote_refresh.container", step.name, address]

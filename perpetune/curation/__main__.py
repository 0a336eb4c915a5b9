"""The stages of `dvc.yaml`: `python -m perpetune.curation STAGE`, run in the workspace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from perpetune.curation.engine import engine_of
from perpetune.curation.layout import RESOLVED
from perpetune.curation.stage_command import run_stage
from perpetune.curation.steps import clean, drift_reference, fetch, language, private, repair, split, validate
from perpetune.files import write_atomic
from perpetune.params import Params, as_yaml, load_params


def _card(params: Params, workspace: Path) -> str:
    # Only the card needs numpy and jinja2.
    from perpetune.curation.steps import data_card

    return data_card.run(params.task, params.mix, params.private, workspace)


def _resolved(params: Params, workspace: Path) -> str:
    """What params.yaml and the defaults give: later stages depend on it, and so run again if a default changes."""
    write_atomic(workspace / RESOLVED, as_yaml(params))
    return f"every setting as it holds, in {RESOLVED}"


STAGES: dict[str, Callable[[Params, Path], str]] = {
    "params": _resolved,
    "fetch": lambda params, workspace: fetch.run(params.fetch, params.task, workspace),
    "validate": lambda _, workspace: validate.run(workspace),
    "repair": lambda params, workspace: repair.run(params.repair, params.task, workspace, engine_of(params.curate)),
    "language": lambda params, workspace: language.run(
        params.language, params.split.seed, workspace, engine_of(params.curate)
    ),
    "private": lambda params, workspace: private.run(params.private, params.task, workspace, engine_of(params.curate)),
    "clean": lambda params, workspace: clean.run(
        params.clean, params.task, params.split.seed, workspace, engine_of(params.curate)
    ),
    "split": lambda params, workspace: split.run(
        params.split, params.mix, params.task, workspace, engine_of(params.curate)
    ),
    "reference": lambda params, workspace: drift_reference.run(params.reference, workspace),
    "card": _card,
}


def main() -> int:
    return run_stage(
        "perpetune.curation", __doc__, STAGES, lambda stage: STAGES[stage](load_params(Path("params.yaml")), Path())
    )


if __name__ == "__main__":
    sys.exit(main())

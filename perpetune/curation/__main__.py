"""The stages of `dvc.yaml`: `python -m perpetune.curation STAGE`, run in the workspace.

Each stage is a process of its own, so it imports its own step alone: all of them take longer than most stages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from perpetune.curation.running.stage_command import run_stage
from perpetune.params import Params, as_yaml, load_params


def _resolved(params: Params, workspace: Path) -> str:
    """What params.yaml and the defaults give: later stages depend on it, and so run again if a default changes."""
    from perpetune.curation.running.layout import RESOLVED
    from perpetune.files import write_atomic

    write_atomic(workspace / RESOLVED, as_yaml(params))
    return f"every setting as it holds, in {RESOLVED}"


def _fetch(params: Params, workspace: Path) -> str:
    from perpetune.curation.steps import fetch

    return fetch.run(params.fetch, params.task, workspace)


def _validate(_: Params, workspace: Path) -> str:
    from perpetune.curation.steps import validate

    return validate.run(workspace)


def _repair(params: Params, workspace: Path) -> str:
    from perpetune.curation.running.engine import engine_of
    from perpetune.curation.steps import repair

    return repair.run(params.repair, params.task, workspace, engine_of(params.curate))


def _language(params: Params, workspace: Path) -> str:
    from perpetune.curation.running.engine import engine_of
    from perpetune.curation.steps import language

    return language.run(params.language, params.split.seed, workspace, engine_of(params.curate))


def _private(params: Params, workspace: Path) -> str:
    from perpetune.curation.running.engine import engine_of
    from perpetune.curation.steps import private

    return private.run(params.private, params.task, workspace, engine_of(params.curate))


def _clean(params: Params, workspace: Path) -> str:
    from perpetune.curation.running.engine import engine_of
    from perpetune.curation.steps import clean

    return clean.run(params.clean, params.task, params.split.seed, workspace, engine_of(params.curate))


def _split(params: Params, workspace: Path) -> str:
    from perpetune.curation.running.engine import engine_of
    from perpetune.curation.steps import split

    return split.run(params.split, params.mix, params.task, workspace, engine_of(params.curate))


def _reference(params: Params, workspace: Path) -> str:
    from perpetune.curation.steps import drift_reference

    return drift_reference.run(params.reference, workspace)


def _card(params: Params, workspace: Path) -> str:
    from perpetune.curation.steps import data_card

    return data_card.run(params.task, params.mix, params.private, workspace)


STAGES: dict[str, Callable[[Params, Path], str]] = {
    "params": _resolved,
    "fetch": _fetch,
    "validate": _validate,
    "repair": _repair,
    "language": _language,
    "private": _private,
    "clean": _clean,
    "split": _split,
    "reference": _reference,
    "card": _card,
}


def main() -> int:
    return run_stage(
        "perpetune.curation", __doc__, STAGES, lambda stage: STAGES[stage](load_params(Path("params.yaml")), Path())
    )


if __name__ == "__main__":
    sys.exit(main())

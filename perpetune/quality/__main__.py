"""The stages of `dvc.yaml` that need features of texts: `python -m perpetune.quality STAGE`, run in the workspace.

Each stage is a process of its own, so it imports its own step alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from perpetune.curation.running.stage_command import run_stage
from perpetune.workspace import Workspace, open_workspace


def _params(workspace: Workspace) -> str:
    from perpetune.quality.steps import resolved_params

    return resolved_params.run(workspace)


def _label_errors(workspace: Workspace) -> str:
    from perpetune.quality.steps import label_errors

    return label_errors.run(workspace)


def _semantic(workspace: Workspace) -> str:
    from perpetune.quality.steps import semantic

    return semantic.run(workspace)


def _select(workspace: Workspace) -> str:
    from perpetune.quality.steps import select

    return select.run(workspace)


STAGES: dict[str, Callable[[Workspace], str]] = {
    "params": _params,
    "label_errors": _label_errors,
    "semantic": _semantic,
    "select": _select,
}


def main() -> int:
    return run_stage("perpetune.quality", __doc__, STAGES, lambda stage: STAGES[stage](open_workspace()))


if __name__ == "__main__":
    sys.exit(main())

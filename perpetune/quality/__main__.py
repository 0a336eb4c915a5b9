"""The stages of `dvc.yaml` that need features of texts: `python -m perpetune.quality STAGE`, run in the workspace."""

from __future__ import annotations

import sys
from collections.abc import Callable

from perpetune.curation.running.stage_command import run_stage
from perpetune.quality.steps import label_errors, resolved_params, select, semantic
from perpetune.workspace import Workspace, open_workspace

STAGES: dict[str, Callable[[Workspace], str]] = {
    "params": resolved_params.run,
    "label_errors": label_errors.run,
    "semantic": semantic.run,
    "select": select.run,
}


def main() -> int:
    return run_stage("perpetune.quality", __doc__, STAGES, lambda stage: STAGES[stage](open_workspace()))


if __name__ == "__main__":
    sys.exit(main())

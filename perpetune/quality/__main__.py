"""The stages of `dvc.yaml` that need features of texts: `python -m perpetune.quality STAGE`, run in the workspace."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from perpetune.curation.steps.step_files import timed
from perpetune.errors import PerpetuneError
from perpetune.quality.steps import label_errors, select, semantic
from perpetune.workspace import Workspace, open_workspace

STAGES: dict[str, Callable[[Workspace], str]] = {
    "label_errors": label_errors.run,
    "semantic": semantic.run,
    "select": select.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perpetune.quality", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args().stage
    try:
        workspace = open_workspace()
        with timed(workspace.root, stage):
            line = STAGES[stage](workspace)
        print(f"{stage}: {line}")
    except PerpetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

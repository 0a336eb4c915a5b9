"""The command of a stage of `dvc.yaml`."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from perpetune.curation.running.estimate import estimate
from perpetune.curation.steps.step_files import timed
from perpetune.errors import PerpetuneError


def run_stage(package: str, description: str | None, stages: Collection[str], run: Callable[[str], str]) -> int:
    """Run the stage that the command line names, in the current folder, and print its summary. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parser.add_argument("stage", choices=stages)
    stage = parser.parse_args().stage
    # Rows hold no reference cycles. Python would look for some among all rows whenever a few hundred are added.
    gc.set_threshold(200_000, 50, 100)
    if expected := estimate(stage, Path()):
        print(expected, file=sys.stderr, flush=True)
    try:
        with timed(Path(), stage):
            summary = run(stage)
        print(f"{stage}: {summary}")
    except PerpetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0

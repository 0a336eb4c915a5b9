"""`python -m perpetune.flows.remote_refresh --store ADDRESS OPTIONS`, in a workspace. See docs/guides/clouds.md."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_refresh.client import refresh_remotely
from perpetune.flows.remote_refresh.pipeline import RefreshPipeline
from perpetune.flows.remote_training.options import add_kubeflow_options, kubeflow_of
from perpetune.training.remote.store import JobStore
from perpetune.workspace import open_workspace


def main(given: Sequence[str]) -> int:
    options = _options(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        pipeline = RefreshPipeline(kubeflow_of(options))
        if options.compile is not None:
            pipeline.compile(options.compile)
            print(f"compiled {options.compile}")
        else:
            print(refresh_remotely(open_workspace(), JobStore(options.store), pipeline))
        return 0
    except PerpetuneError as fault:
        print(fault, file=sys.stderr)
        return 1


def _options(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m perpetune.flows.remote_refresh",
        description="Refresh a copy of this workspace by Kubeflow Pipelines, each step in a container.",
        allow_abbrev=False,
    )
    parser.add_argument("--store", help="where the copy goes meanwhile, such as s3://BUCKET/perpetune")
    parser.add_argument("--compile", type=Path, metavar="FILE", help="only write the pipeline to this YAML file")
    add_kubeflow_options(parser)
    options = parser.parse_args(given)
    if options.store is None and options.compile is None:
        parser.error("--store is needed, or --compile")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

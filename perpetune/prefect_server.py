"""Prefect's server as `prefect server start` runs it, with a queue that looks for work every two seconds.

Prefect keeps its queue of background work in memory and looks into it four times a second, which no setting changes.
On an idle machine that is most of what all services cost together.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from docket import Worker
from prefect.cli import app
from prefect.server.api import background_workers

LOOK_EVERY = timedelta(seconds=2)


def main() -> None:
    """The command line of Prefect."""
    patient = partial(Worker, minimum_check_interval=LOOK_EVERY, scheduling_resolution=LOOK_EVERY)
    setattr(background_workers, "Worker", patient)  # noqa: B010  a class gives way to a function
    app()


if __name__ == "__main__":
    main()

"""The server that `perpetune up` starts is Prefect's, with a queue that is more patient."""

from __future__ import annotations

import pytest
from docket import Docket
from prefect.server.api import background_workers

from perpetune import prefect_server


def test_the_queue_is_looked_into_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_workers, "Worker", background_workers.Worker)
    commands = []
    monkeypatch.setattr(prefect_server, "app", lambda: commands.append("run"))
    prefect_server.main()
    worker = background_workers.Worker(Docket(name="any", url="memory://"))
    assert commands == ["run"]
    assert worker.minimum_check_interval == worker.scheduling_resolution == prefect_server.LOOK_EVERY

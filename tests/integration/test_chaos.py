"""The short form of `make chaos`: services die, hang and are cut off while requests, labels and checks go on."""

from __future__ import annotations

import pytest
from chaos import postgres
from chaos.rounds import run_short
from chaos.world import running_world

from perpetune.errors import PerpetuneError

pytestmark = pytest.mark.slow

NEVER = 1_000_000_000  # labels: the two checks start no refresh, which takes as long as all else


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_and_requests_are_answered() -> None:
    try:
        postgres.programs()
    except PerpetuneError as fault:
        pytest.skip(str(fault))
    with running_world(first_labels=NEVER) as world:
        report = run_short(world)
    report.show()
    assert report.answered > 20
    assert report.holds

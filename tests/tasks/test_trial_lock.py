from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness

from perpetune.tasks.trial_lock import only_judge


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_a_trial_has_one_judge_at_a_time() -> None:
    with only_judge("colours"):
        with only_judge("reviews", wait_seconds=5):
            pass
        with pytest.raises(TimeoutError), only_judge("colours", wait_seconds=1):
            pytest.fail("two judges")
    with only_judge("colours", wait_seconds=5):
        pass


def test_a_judge_that_fails_leaves_its_place() -> None:
    with pytest.raises(ValueError, match="no verdict"), only_judge("colours"):
        raise ValueError("no verdict")
    with only_judge("colours", wait_seconds=5):
        pass

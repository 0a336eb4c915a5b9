from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness

from perpetune.tasks.locks import trial_lock

pytestmark = pytest.mark.slow  # a Prefect server


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_a_trial_has_one_check_at_a_time() -> None:
    with trial_lock("colours"):
        with trial_lock("reviews", wait_seconds=5):
            pass
        with pytest.raises(TimeoutError), trial_lock("colours", wait_seconds=1):
            pytest.fail("two checks at once")
    with trial_lock("colours", wait_seconds=5):
        pass


def test_a_check_that_fails_releases_the_lock() -> None:
    with pytest.raises(ValueError, match="no verdict"), trial_lock("colours"):
        raise ValueError("no verdict")
    with trial_lock("colours", wait_seconds=5):
        pass

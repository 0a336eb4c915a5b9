from __future__ import annotations

import pytest

from perpetune.tasks.locks import trial_lock

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


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

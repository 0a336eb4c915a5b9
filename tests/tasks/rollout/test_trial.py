from __future__ import annotations

import pytest

from perpetune.tasks.rollout.trial import CHECK_SECONDS, pause_after


@pytest.mark.parametrize("seconds", [0.0, 0.1, 2.0, 60.0])
def test_a_followed_trial_is_checked_for_a_tenth_of_the_time_at_most(seconds: float) -> None:
    assert pause_after(seconds) >= CHECK_SECONDS
    assert seconds / (seconds + pause_after(seconds)) <= 0.1 + 1e-9

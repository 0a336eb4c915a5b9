from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perpetune.gateway.releases.routing import is_routed_to_trial
from perpetune.model.release import Trial

KEYS = [f"user {number}" for number in range(4000)]


def share_of(version: str, share: float) -> set[str]:
    return {key for key in KEYS if is_routed_to_trial(Trial(version, "canary", share), key)}


@given(st.floats(0.01, 0.99))
def test_about_the_share_falls_to_the_trial(share: float) -> None:
    assert abs(len(share_of("3", share)) / len(KEYS) - share) < 0.04


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_share_has_all_of_a_smaller_one(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert share_of("3", small) <= share_of("3", large)


def test_everybody_or_the_same_people_again() -> None:
    assert share_of("3", 1.0) == set(KEYS)
    assert share_of("3", 0.2) == share_of("3", 0.2)


def test_who_is_in_one_trial_says_nothing_of_the_next() -> None:
    both = share_of("3", 0.5) & share_of("4", 0.5)
    assert abs(len(both) / len(KEYS) - 0.25) < 0.03

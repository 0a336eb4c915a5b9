from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perpetune.errors import PerpetuneError
from perpetune.loop.rollout.deploy import release

pytestmark = pytest.mark.slow


def test_a_version_is_released_without_a_gateway(releases: Callable[..., Any]) -> None:
    world = releases()
    first, second = world.make(), world.make()
    assert (release(world.workspace, first).previous, world.aliases()) == (None, [first, None, second])
    released = release(world.workspace, second)
    assert (released.served, released.previous, world.aliases()) == (None, first, [second, first, None])


@pytest.mark.parametrize("names_back", [True, False])
def test_a_version_that_the_gateway_refuses_is_not_champion(
    releases: Callable[..., Any], gateway: Any, names_back: bool
) -> None:
    world = releases(gateway.url)
    gateway.task, gateway.names_back = world.task, names_back
    first, second = world.make(), world.make()
    assert release(world.workspace, first).served is True
    gateway.refuses.add(second)
    with pytest.raises(PerpetuneError, match=f"does not serve version {second}: version {second} answers otherwise"):
        release(world.workspace, second)
    assert world.aliases()[:2] == [first, None]
    assert world.tags(second)["release.state"] == "refused"
    assert "answers otherwise" in world.tags(second)["release.reason"]

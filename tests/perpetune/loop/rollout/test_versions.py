"""A task with many versions is listed in a few lines."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from command_line import perpetune
from rich.console import Console

from perpetune.explain.status import read_status
from perpetune.explain.status_screen import show_status
from perpetune.loop.rollout.versions import NEWEST, list_versions, listing
from perpetune.tracking import registry

pytestmark = pytest.mark.slow


def test_the_newest_versions_and_those_in_use_are_shown(releases: Callable[..., Any]) -> None:
    world = releases()
    made = [world.make() for _ in range(NEWEST + 5)]
    registry.promote(world.task, made[1])
    registry.promote(world.task, made[2])
    shown = [*reversed(made[5:]), made[2], made[1]]

    found = read_status(world.workspace)
    assert [line.version for line in found.versions] == shown
    assert found.has_older_versions
    out = StringIO()
    show_status(found, Console(file=out, width=120))
    assert "older versions: `perpetune status --all`" in out.getvalue()
    assert len(out.getvalue().splitlines()) <= 40

    every = read_status(world.workspace, all_versions=True)
    assert ([line.version for line in every.versions], every.has_older_versions) == (made[::-1], False)

    lines = listing(list_versions(world.task))
    assert len(lines) == len(shown) + 2
    assert lines[-2] == "older ones: `perpetune status --all`"
    refused = perpetune(world.workspace.root, "promote", "99", "--reason", "x")
    assert refused.exit_code == 1
    assert len(refused.stderr.splitlines()) < 40


def test_a_few_versions_are_all_shown(releases: Callable[..., Any]) -> None:
    world = releases()
    made = [world.make() for _ in range(2)]
    found = read_status(world.workspace)
    assert ([line.version for line in found.versions], found.has_older_versions) == (made[::-1], False)
    assert "older" not in " ".join(listing(list_versions(world.task)))

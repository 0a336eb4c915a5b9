from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perpetune.loop.assess.costs import new_labels
from perpetune.records import Example, write_jsonl

pytestmark = pytest.mark.slow


def test_requested_labels_count_like_other_labels(releases: Callable[..., Any]) -> None:
    workspace = releases().workspace
    for split, sources in (
        ("train", ("file", "traffic", "traffic in doubt")),
        ("validation", ()),
        ("recent", ("traffic",)),
    ):
        rows = [Example(input=each, output="yes", id=each, group=each, source=each) for each in sources]
        write_jsonl(workspace.split(split), rows)

    assert new_labels(workspace) == 3

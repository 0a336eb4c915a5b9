"""The diagrams that are committed are those that the script draws."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from diagrams import DIAGRAMS, FOLDER, svg


@pytest.mark.parametrize("name", DIAGRAMS)
def test_committed_and_well_formed(name: str) -> None:
    drawn = svg(DIAGRAMS[name])
    assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == drawn
    assert ElementTree.fromstring(drawn).tag.endswith("svg")

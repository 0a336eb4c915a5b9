"""Links of the pages beside the site, and what a page would load from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from links import broken_links, broken_outside, foreign_assets
from markdown_text import ROOT


def test_links_of_the_readme_and_its_neighbours() -> None:
    assert broken_outside() == []


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "other.md").write_text("# Other\n\n## What `it` is\n")
    return tmp_path / "page.md"


def test_a_broken_link_is_named(page: Path) -> None:
    page.write_text("[a](other.md#what-it-is) [b](other.md#gone) [c](gone.md) [d](https://example.org/x) `[e](no.md)`")
    assert list(broken_links(page, page.parent)) == [
        "page.md: other.md#gone: there is no such heading",
        "page.md: gone.md: there is no such file",
    ]


def test_assets_from_elsewhere_are_found() -> None:
    assert foreign_assets('<script src="https://example.org/x.js"></script>')
    assert foreign_assets('<link rel="stylesheet" href=//example.org/x.css>')
    assert not foreign_assets('<a href="https://example.org">x</a><script src="../x.js"></script>')


def test_the_root_is_that_of_the_repository() -> None:
    assert (ROOT / "mkdocs.yml").is_file()

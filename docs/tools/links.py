"""Links of the pages that MkDocs does not build, and assets that a page would load from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from markdown.extensions.toc import slugify  # type: ignore[import-untyped]
from markdown_text import ROOT

OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
_ASSET = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"'> ]+")


def broken_links(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Relative links of a page whose file, or heading in it, does not exist."""
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        if ":" in link.partition("/")[0]:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists():
            yield f"{page.relative_to(root)}: {link}: there is no such file"
        elif anchor and anchor not in _anchors(target):
            yield f"{page.relative_to(root)}: {link}: there is no such heading"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings}


def broken_outside() -> list[str]:
    return [fault for name in OUTSIDE for fault in broken_links(ROOT / name)]


def foreign_assets(html: str) -> list[str]:
    """What a browser would fetch from another server."""
    return [found for found in _ASSET.findall(html) if 'rel="canonical"' not in found]

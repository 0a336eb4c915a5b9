"""After an erasure no byte of the workspace, its remote and its databases holds the text."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from loop_workspace import FILLERS, THINGS, lay_out, one_pass

from perpetune.curation import dvc
from perpetune.curation.erased import load_tombstones
from perpetune.curation.ingest import ingest
from perpetune.curation.layout import INBOX
from perpetune.erasure import erase as erasing
from perpetune.erasure.erase import complete, erase, pending
from perpetune.erasure.selection import Selector
from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams
from perpetune.records import Example, read_jsonl
from perpetune.tracking import registry
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow


def holders(root: Path, marker: str) -> list[str]:
    """The files whose bytes hold the marker, in any case."""
    files = (path for path in root.rglob("*") if path.is_file())
    return [str(path.relative_to(root)) for path in files if marker.lower().encode() in path.read_bytes().lower()]

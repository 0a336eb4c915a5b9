"""The command line in the test's own process: a new one takes seconds to import what a command needs."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner, Result

from perpetune.cli import app


def perpetune(folder: Path, *arguments: str) -> Result:
    """What `perpetune` with these arguments prints and exits with in a folder."""
    with chdir(folder):
        return CliRunner().invoke(app, arguments)

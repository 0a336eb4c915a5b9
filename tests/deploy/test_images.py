"""Every image gets what its Dockerfile copies: the context as Docker sends it, and each COPY and ADD followed.

Docker itself is not needed: the rules of .dockerignore are those of Docker's own Python client.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_file import copies
from docker.utils.build import exclude_paths  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
LEFT_OUT = {".git", ".venv", ".venv-vllm", "assets"}  # of the search for Dockerfiles


def builds() -> dict[str, Path]:
    """The context of each Dockerfile that docker-compose.yml builds, by its path from the root."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    found = [service["build"] for service in services.values() if "build" in service]
    wanted = [{"context": each} if isinstance(each, str) else each for each in found]
    return {
        (Path(each["context"]) / each.get("dockerfile", "Dockerfile")).as_posix(): ROOT / each["context"]
        for each in wanted
    }


def test_every_dockerfile_is_built_by_compose() -> None:
    files = {path for path in ROOT.glob("*/**/*Dockerfile*") if path.relative_to(ROOT).parts[0] not in LEFT_OUT}
    assert {path.relative_to(ROOT).as_posix() for path in files | set(ROOT.glob("*Dockerfile*"))} == set(builds())


@pytest.mark.parametrize("dockerfile", builds())
def test_all_that_an_image_copies_is_in_its_context(dockerfile: str) -> None:
    context = builds()[dockerfile]
    sent = context_of(context, dockerfile)
    copied = list(copies(ROOT / dockerfile))
    assert copied, "it copies something"
    for sources, _ in copied:
        for source in sources:
            assert list(context.glob(source)), f"there is no {source}"
            assert any(each in sent for each in files_under(context, source)), f"{source} is not in the context"


def test_the_context_is_no_larger_than_the_image_needs() -> None:
    for name in context_of(ROOT, "deploy/Dockerfile"):
        assert name.split("/")[0] not in {".git", ".venv", "assets", "data", ".perpetune", "tests", ".env"}, name
        assert "__pycache__" not in name


def test_a_file_that_is_left_out_of_the_context_is_found(tmp_path: Path) -> None:
    """The check itself: it fails for an ignored folder, as Docker does."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "lost").mkdir()
    for name in ("kept/a", "lost/b", "Dockerfile"):
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text("*\n!kept\n# a comment\n")
    assert {"kept/a", "Dockerfile"} <= context_of(tmp_path, "Dockerfile")
    assert "lost/b" not in context_of(tmp_path, "Dockerfile")
    (tmp_path / "Dockerfile").write_text(
        'FROM x AS y\nCOPY --chown=1 kept \\\n  lost /there/\nADD ["a b", "/c"]\nCOPY --from=y z /z\nRUN COPY a b\n'
    )
    assert list(copies(tmp_path / "Dockerfile")) == [(["kept", "lost"], "/there/"), (["a b"], "/c")]


@pytest.mark.slow
def test_the_package_is_built_from_what_the_image_has(tmp_path: Path) -> None:
    """`RUN pip install --no-deps .`, with the files that were copied and no others."""
    here, image = context_of(ROOT, "deploy/Dockerfile"), tmp_path / "image"
    for sources, target in copies(ROOT / "deploy/Dockerfile"):
        for name in sorted(each for source in sources for each in files_under(ROOT, source) if each in here):
            inside = Path(name).name if target.endswith("/") else Path(target) / Path(name).relative_to(sources[0])
            (image / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, image / inside, follow_symlinks=False)
    command = ["wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "pip", *command], cwd=image, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "perpetune", "flows", "tasks"], cwd=ROOT, capture_output=True, text=True
    )
    modules = {name for name in tracked.stdout.split() if name.endswith(".py") and "/testing/" not in name}
    assert modules and {name if "perpetune" in name else f"perpetune/{name}" for name in modules} <= held
    assert {"perpetune/model/assets.lock", "perpetune/scaffold/templates/dvc.yaml"} <= held


def context_of(context: Path, dockerfile: str) -> set[str]:
    """The files that Docker sends: all of the folder but those that .dockerignore leaves out."""
    ignore = context / ".dockerignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return {Path(path).as_posix() for path in exclude_paths(str(context), patterns, dockerfile)}


def files_under(context: Path, source: str) -> set[str]:
    """The files that a source names, itself or what is in it, as paths from the context."""
    found = [path for top in context.glob(source) for path in ([*top.rglob("*")] if top.is_dir() else [top])]
    return {path.relative_to(context).as_posix() for path in found if path.is_symlink() or path.is_file()}

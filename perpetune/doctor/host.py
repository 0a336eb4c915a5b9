"""The machine: packages, disk, memory and GPU."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from perpetune.doctor.finding import Finding, fault_of
from perpetune.errors import PerpetuneError
from perpetune.model.weights import must_be_fetched, resolve, weight_files
from perpetune.workspace import Workspace

GB = 1e9
FULL, NEARLY_FULL = 1 * GB, 5 * GB  # free bytes: a refresh of the small base writes about 0.5 GB
PYTHONS = SpecifierSet(">=3.11,<3.12")
_GPU_DEVICES = ("nvidia", "nvhost", "kfd", "dxg")
MAX_NAMED = 3  # packages named of those that do not fit


def python_version() -> Finding:
    found = platform.python_version()
    if PYTHONS.contains(found):
        return Finding("Python", "ok", found)
    return Finding("Python", "fault", f"{found} is not tested", "run perpetune with Python 3.11")


def packages() -> Finding:
    """Whether each package that perpetune needs is installed in a version that it allows."""
    named = [Requirement(text) for text in requires("perpetune") or ()]
    needed = [each for each in named if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [problem for each in needed if (problem := _problem(each))]
    if not wrong:
        return Finding(
            "packages", "ok", f"perpetune {version('perpetune')} with the {len(needed)} packages that it needs"
        )
    more = f" and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
    return Finding(
        "packages",
        "fault",
        f"{'; '.join(wrong[:MAX_NAMED])}{more}",
        "install perpetune again into an environment of its own: `pip install --force-reinstall perpetune`",
    )


def _problem(needed: Requirement) -> str | None:
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} is not installed"
    if needed.specifier.contains(found, prereleases=True):
        return None
    return f"{needed.name} {found} is installed, {needed.name}{needed.specifier} is needed"


def disk(workspace: Workspace) -> Finding:
    """Free space of the file systems of the workspace and of its home, the fuller of both."""
    folders = [workspace.root, _existing(workspace.home)]
    folder = min(folders, key=lambda each: shutil.disk_usage(each).free)
    free = shutil.disk_usage(folder).free
    what = f"{free / GB:.1f} GB are free in {folder}"
    if free < FULL:
        return Finding("disk", "fault", what, "free some space: a refresh writes checkpoints and a model")
    if free < NEARLY_FULL:
        return Finding(
            "disk", "warning", what, "free some space, or move .perpetune to a larger disk by PERPETUNE_HOME"
        )
    return Finding("disk", "ok", what)


def base_model(workspace: Workspace) -> Finding:
    """Whether the base is on this machine, and fits into the memory of its GPU, or of the machine without one."""
    base = workspace.params.base
    if base.model.startswith("pypi:") and must_be_fetched(base, workspace.assets):
        return Finding("base model", "warning", f"{base.model} is not on this machine", "run `perpetune download`")
    try:
        size = sum(file.stat().st_size for file in weight_files(resolve(base, workspace.assets)))
    except PerpetuneError as error:
        return fault_of("base model", error)
    free, device = _free_memory()
    what = f"{base.model} takes {size / GB:.1f} GB, and {free / GB:.1f} GB of {device} are free"
    if size > free:
        return Finding("base model", "fault", what, "use a smaller base (base.model), or a machine with more memory")
    return Finding("base model", "ok", what)


def _free_memory() -> tuple[int, str]:
    """Of the GPU, if there is one. PyTorch, which takes seconds to import, is asked only if there may be one."""
    if not _may_have_gpu():
        return psutil.virtual_memory().available, "memory (there is no GPU)"
    import torch

    from perpetune.training.free_memory import free_bytes

    has_gpu = torch.cuda.is_available()
    return free_bytes(), f"the GPU ({torch.cuda.get_device_name()})" if has_gpu else "memory (there is no GPU)"


def _may_have_gpu() -> bool:
    """Whether Linux has a device of a driver that PyTorch computes with: NVIDIA's, AMD's or that of Windows below it."""
    return sys.platform != "linux" or any(each.name.startswith(_GPU_DEVICES) for each in Path("/dev").iterdir())


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder

"""What a finished demo leaves in its folder for `benchmarks/demo.py`: the stream and where it ran."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from perpetune.demo.summary import Summary
from perpetune.errors import PerpetuneError
from perpetune.loop.run_context import git_commit
from perpetune.settings import checkout

FILE = "demo.json"
PACKAGES = ("perpetune", "torch", "transformers", "peft", "prefect", "mlflow", "dvc", "evidently")


def save_summary(folder: Path, summary: Summary) -> Path:
    """Write `demo.json`, with the commit of the checkout that this code lies in."""
    saved = {
        "summary": asdict(summary),
        "accuracies": {name: asdict(found) for name, found in summary.accuracies().items()},
        "requests": len(summary.moments),
        "failed": summary.failed,
        "drift_at": summary.drift_at,
        "decay_at": summary.decay_at,
        "seconds": round(sum(seconds for _, seconds in summary.stages), 1),
        "device": _device(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": git_commit(checkout() or folder),
    }
    path = folder / FILE
    path.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_saved(folder: Path) -> dict[str, Any]:
    """What `save_summary` wrote. Raises PerpetuneError if there is none."""
    path = folder / FILE
    if not path.is_file():
        raise PerpetuneError("no finished demo lies here", where=str(path), do="run `perpetune demo` first")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {names[0].partition(':')[2].strip()}" if names else f"{cores} cores"

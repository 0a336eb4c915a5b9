"""The JSON of a benchmark: claims with goals, device and versions."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES: tuple[str, ...] = (
    "torch",
    "triton",
    "transformers",
    "peft",
    "bitsandbytes",
    "trl",
    "accelerate",
    "numpy",
    "scipy",
    "evidently",
    "river",
    "snorkel",
    "crowd-kit",
    "mlflow",
    "prefect",
    "nanio",
    "perpetune",
)


@dataclass(frozen=True)
class Claim:
    """A measured value with its interval (all rounds are in it) and its goal."""

    claim: str
    value: float
    interval: tuple[float, float]
    goal: float
    holds: bool


def write(benchmark: str, claims: Sequence[Claim], details: object, seconds: float, folder: Path = RESULTS) -> Path:
    """Write `BENCHMARK.json` into the folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}.json"
    record = {
        "benchmark": benchmark,
        "claims": [asdict(claim) for claim in claims],
        "details": details,
        "device": device(),
        "versions": versions(),
        "commit": commit(),
        "seconds": round(seconds, 1),
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor()
    return f"{len(names)} cores of {name}"


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"

"""Data sets of the Hugging Face hub, or of its local cache: `hf:owner/name`, `hf:owner/name:split`."""

from __future__ import annotations

from pathlib import Path

from perpetune.errors import PerpetuneError

PREFIX = "hf:"


def is_hub(address: str) -> bool:
    return address.startswith(PREFIX) and "://" not in address


def save_splits(address: str, folder: Path) -> list[Path]:
    """The split as a Parquet file; `train`, or else all, if the address names none. Raises PerpetuneError."""
    name, _, split = address.removeprefix(PREFIX).partition(":")
    try:
        # Late: it is slow to import, and not a dependency.
        from datasets import DatasetDict, load_dataset
    except ImportError:
        raise PerpetuneError(
            "data sets of the hub need the package datasets", where=address, do="pip install datasets"
        ) from None
    try:
        found = load_dataset(name)
    # The hub, the cache and each builder have errors of their own.
    except Exception as fault:
        raise PerpetuneError(f"it cannot be loaded: {str(fault).splitlines()[0]}", where=address) from None
    splits = dict(found) if isinstance(found, DatasetDict) else {"train": found}
    if split and split not in splits:
        raise PerpetuneError(f"there is no split {split!r}", where=address, do=f"use one of {', '.join(splits)}")
    chosen = [split] if split else (["train"] if "train" in splits else list(splits))
    paths = []
    for each in chosen:
        path = folder / f"{name.rsplit('/', 1)[-1]}-{each}.parquet"
        splits[each].to_parquet(str(path))
        paths.append(path)
    return paths

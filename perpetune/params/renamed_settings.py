"""Settings that had another name: in params.yaml until schema 2, and in what runs recorded before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA = 2  # of params.yaml; a file that does not say has schema 1
SCHEMA_KEY = "schema"

RENAMED = {
    "train.early_stopping": "train.early_stopping_patience",
    "train.max_gradient_norm": "train.max_grad_norm",
    "train.warmup_share": "train.warmup_ratio",
    "promote.simpler": "promote.simpler_margin",
    "serve.first": "serve.initial_model",
    "log.keep_days": "log.retention_days",
    "log.sample": "log.sample_rate",
    "release.parity_confidence": "release.parity_tolerance",
    "release.parity_share": "release.parity_rate",
    "release.share": "release.traffic_ratio",
    "watch.ask_labels": "watch.label_requests",
    "watch.ask_random": "watch.random_label_ratio",
    "watch.drift_share": "watch.drift_ratio",
    "watch.persistence": "watch.consecutive_checks",
    "refresh.back_off": "refresh.backoff_factor",
}

DROPPED = ("watch.drift_ratio", "watch.reference_confidence")  # nothing uses them, and files may still have them


def with_new_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings, section by section, under the names of today."""
    return {
        section: {_last(f"{section}.{name}"): value for name, value in values.items()}
        if isinstance(values, Mapping)
        else values
        for section, values in settings.items()
    }


def with_old_names(settings: Mapping[str, Any], section: str) -> dict[str, Any]:
    """One section under the names of schema 1, for code that knows no other."""
    old = {new: old.rpartition(".")[2] for old, new in RENAMED.items()}
    return {old.get(f"{section}.{name}", name): value for name, value in settings.items()}


def flat_with_new_names(settings: Mapping[str, str]) -> dict[str, str]:
    """The same of settings that are logged flat, as `train.warmup_share`."""
    return {RENAMED.get(name, name): value for name, value in settings.items()}


def _last(field: str) -> str:
    return RENAMED.get(field, field).rpartition(".")[2]

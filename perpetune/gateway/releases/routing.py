"""Routing of requests to a version on trial."""

from __future__ import annotations

from perpetune.model.release import Trial
from perpetune.prediction_log.hash_sampling import is_sampled


def is_routed_to_trial(trial: Trial, key: str) -> bool:
    """Whether the user or session `key` is routed to the trial.

    The result is the same for all of its requests in all gateways, independent between trials, and stays true if the
    trial's traffic ratio grows.
    """
    return is_sampled(f"{trial.version}\0{key}", trial.traffic_ratio)

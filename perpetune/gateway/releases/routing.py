"""Which requests fall to a version on trial."""

from __future__ import annotations

from perpetune.model.release import Trial
from perpetune.prediction_log.hash_position import is_sampled


def is_routed_to_trial(trial: Trial, key: str) -> bool:
    """Whether the user or session `key` is among the trial's share.

    The same for all of its requests in all gateways, and independent from one trial to the next. Who is in a share is
    in every larger one too.
    """
    return is_sampled(f"{trial.version}\0{key}", trial.share)

"""The state of the decay detector of one version, saved between checks as a tag of the version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from perpetune.params import WatchParams
from perpetune.statistics.e_detector import Detector, new_detector, update_detector

# The tag of the version. It holds detector and position together, so that a killed check neither skips labels nor
# counts them twice.
DETECTOR = "perpetune.detector"
SAME = 1e-9  # bounds that differ by less are the same


@dataclass(frozen=True)
class DetectorState:
    """The detector and the position in the feedback up to which labels were counted.

    `until` is the number of the newest feedback counted. `labels` counts all labels of the version, `total` is the sum of
    their scores. `alarms` counts the latest consecutive checks with an alarm; `alarmed_by` is the number of labels at
    which the current alarm came, None without one.
    """

    detector: Detector
    until: int = 0
    labels: int = 0
    total: float = 0.0
    alarms: int = 0
    alarmed_by: int | None = None


_JSON = TypeAdapter(DetectorState)


def to_text(detector_state: DetectorState) -> str:
    """The state as compact JSON, with exact numbers."""
    return _JSON.dump_json(detector_state).decode()


def from_text(text: str | None, bound: float) -> DetectorState:
    """Read JSON that `to_text` wrote; a new state if there is none, or it is of another release."""
    try:
        return _JSON.validate_json(text or "")
    except ValidationError:
        return DetectorState(new_detector(bound))


def with_bound(detector_state: DetectorState, bound: float) -> DetectorState:
    """The state itself if it has this bound, otherwise one with a new detector for later labels."""
    fresh, old = new_detector(bound), detector_state.detector
    if abs(old.bound - bound) < SAME and len(old.held) == len(fresh.held):
        return detector_state
    return DetectorState(fresh, detector_state.until, detector_state.labels, detector_state.total)


def reset_detector(detector_state: DetectorState) -> DetectorState:
    """The state with a new detector; labels counted before are not counted again."""
    return DetectorState(
        new_detector(detector_state.detector.bound), detector_state.until, detector_state.labels, detector_state.total
    )


def update_state(
    detector_state: DetectorState, scores: Sequence[float], until: int, params: WatchParams
) -> DetectorState:
    """The state after the scores (0 to 1) of new labels, in the order of the feedback; unchanged without any."""
    if not scores:
        return detector_state
    early = scores[: max(params.window - detector_state.labels, 0)]
    after_early = update_detector(detector_state.detector, early)
    detector = update_detector(after_early, scores[len(early) :])
    labels, total = detector_state.labels + len(scores), detector_state.total + sum(scores)
    if detector.evidence < params.run_length:
        return DetectorState(detector, until, labels, total)
    by = detector_state.alarmed_by
    if by is None:
        came_early = bool(early) and after_early.evidence >= params.run_length
        by = detector_state.labels + len(early) if came_early else labels
    return DetectorState(detector, until, labels, total, detector_state.alarms + 1, by)

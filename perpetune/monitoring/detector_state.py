"""How far the monitor has come with one version: what the next look goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from perpetune.params import WatchParams
from perpetune.statistics.e_detector import Detector, new_detector, update_detector

# A version's tag. State and position are one, written at once, so that no label is counted twice or left out where a
# look is killed.
DETECTOR = "perpetune.detector"
SAME = 1e-9  # bounds that differ by less are the same


@dataclass(frozen=True)
class DetectorState:
    """`until` numbers the newest feedback that was judged, `labels` counts what was judged, by whichever detector.

    `total` is the sum of their scores. `alarms` counts the newest looks at new labels that each ended in the alarm; `alarmed_by` says by how many labels
    the alarm that stands had come, None where none stands.
    """

    detector: Detector
    until: int = 0
    labels: int = 0
    total: float = 0.0
    alarms: int = 0
    alarmed_by: int | None = None


_WRITTEN = TypeAdapter(DetectorState)


def to_text(detector_state: DetectorState) -> str:
    """Compact JSON, from which every number comes back as it was."""
    return _WRITTEN.dump_json(detector_state).decode()


def from_text(text: str | None, bound: float) -> DetectorState:
    """What `to_text` wrote; where there is none, or another release's, the beginning."""
    try:
        return _WRITTEN.validate_json(text or "")
    except ValidationError:
        return DetectorState(new_detector(bound))


def with_bound(detector_state: DetectorState, bound: float) -> DetectorState:
    """The same where it is about this bound, else with a detector that begins anew and sees later labels only."""
    fresh, old = new_detector(bound), detector_state.detector
    if abs(old.bound - bound) < SAME and len(old.held) == len(fresh.held):
        return detector_state
    return DetectorState(fresh, detector_state.until, detector_state.labels, detector_state.total)


def restarted(detector_state: DetectorState) -> DetectorState:
    """The same with a detector that has seen nothing: labels that were judged are not judged again."""
    return DetectorState(
        new_detector(detector_state.detector.bound), detector_state.until, detector_state.labels, detector_state.total
    )


def judge(detector_state: DetectorState, scores: Sequence[float], until: int, params: WatchParams) -> DetectorState:
    """After one look at the scores of new labels, in the order in which they became known; as before without any."""
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

"""How far the monitor has come with one version: what the next look goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from perpetune.params import WatchParams
from perpetune.statistics.e_detector import Detector, go_on, start

# A version's tag. State and position are one, written at once, so that no label is counted twice or left out where a
# look is killed.
DETECTOR = "perpetune.detector"
SAME = 1e-9  # bounds that differ by less are the same


@dataclass(frozen=True)
class Watched:
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


_WRITTEN = TypeAdapter(Watched)


def to_text(watched: Watched) -> str:
    """Compact JSON, from which every number comes back as it was."""
    return _WRITTEN.dump_json(watched).decode()


def from_text(text: str | None, bound: float) -> Watched:
    """What `to_text` wrote; where there is none, or another release's, the beginning."""
    try:
        return _WRITTEN.validate_json(text or "")
    except ValidationError:
        return Watched(start(bound))


def held_to_bound(watched: Watched, bound: float) -> Watched:
    """The same where it is about this bound, else with a detector that begins anew and sees later labels only."""
    fresh, old = start(bound), watched.detector
    if abs(old.bound - bound) < SAME and len(old.held) == len(fresh.held):
        return watched
    return Watched(fresh, watched.until, watched.labels, watched.total)


def begun_anew(watched: Watched) -> Watched:
    """The same with a detector that has seen nothing: labels that were judged are not judged again."""
    return Watched(start(watched.detector.bound), watched.until, watched.labels, watched.total)


def judge(watched: Watched, scores: Sequence[float], until: int, params: WatchParams) -> Watched:
    """After one look at the scores of new labels, in the order in which they became known; as before without any."""
    if not scores:
        return watched
    early = scores[: max(params.window - watched.labels, 0)]
    after_early = go_on(watched.detector, early)
    detector = go_on(after_early, scores[len(early) :])
    labels, total = watched.labels + len(scores), watched.total + sum(scores)
    if detector.evidence < params.run_length:
        return Watched(detector, until, labels, total)
    by = watched.alarmed_by
    if by is None:
        came_early = bool(early) and after_early.evidence >= params.run_length
        by = watched.labels + len(early) if came_early else labels
    return Watched(detector, until, labels, total, watched.alarms + 1, by)

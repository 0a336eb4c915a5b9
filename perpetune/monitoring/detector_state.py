"""The state of the decay detector of one version, saved between checks as a tag of the version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from perpetune.params import WatchParams
from perpetune.statistics.sequential.change_point import (
    Detector,
    WeightedScore,
    bucket_of,
    most_likely_change,
    new_detector,
    update_detector,
)

# The tag of the version. It holds detector and position together, so that a killed check neither skips labels nor
# counts them twice.
DETECTOR = "perpetune.detector"
EARLY = 12  # urgent labels are asked for once a month, if an alarm without decay comes once a year, or more often,
LEAST = 500  # labels
RATIO = 10  # as long as they add at most a tenth to the labels
LOTS = 2  # of urgent labels for one fall: the second if the first has come and neither raised the alarm nor denied it


@dataclass(frozen=True)
class DetectorState:
    """The detector and the position in the feedback up to which labels were counted.

    `until` is the number of the newest feedback counted. `labels` counts all independent labels of the version, `total` is
    the weighted sum of their scores and `weight` the sum of the weights. `alarms` counts the latest consecutive checks
    with an alarm; `alarmed_by` is the number of labels at which the current alarm came, None without one. `asked` counts
    the lots of urgent labels that were requested for the current fall (earlier releases wrote whether there was one).
    `scored_by` names the score that was counted.
    """

    detector: Detector
    until: int = 0
    labels: int = 0
    total: float = 0.0
    weight: float = 0.0
    alarms: int = 0
    alarmed_by: int | None = None
    asked: int = 0
    scored_by: str = ""


_JSON = TypeAdapter(DetectorState)


def new_state(reference: Sequence[WeightedScore] = ()) -> DetectorState:
    """The state before any label."""
    return DetectorState(new_detector(reference))


def to_text(detector_state: DetectorState) -> str:
    """The state as compact JSON, with exact numbers."""
    return _JSON.dump_json(detector_state).decode()


def from_text(text: str | None) -> DetectorState:
    """Read JSON that `to_text` wrote; a new state if there is none, or it is of another release.

    A new state counts the version's labels again from the first.
    """
    try:
        return _JSON.validate_json(text or "")
    except ValidationError:
        return new_state()


def counting(detector_state: DetectorState, scored_by: str) -> DetectorState:
    """The state if it counts this score; else a new one, which counts the version's labels again from the first."""
    return detector_state if detector_state.scored_by == scored_by else replace(new_state(), scored_by=scored_by)


def with_reference(detector_state: DetectorState, reference: Sequence[WeightedScore]) -> DetectorState:
    """The state with the scores of this reference; the labels counted before stay."""
    found = bucket_of(reference)
    if found == detector_state.detector.reference:
        return detector_state
    return replace(detector_state, detector=replace(detector_state.detector, reference=found))


def reset_detector(detector_state: DetectorState) -> DetectorState:
    """The state with a new detector; labels counted before are not counted again."""
    kept = replace(detector_state.detector, buckets=())
    return replace(detector_state, detector=kept, alarms=0, alarmed_by=None, asked=0)


def update_state(
    detector_state: DetectorState, observations: Sequence[WeightedScore], until: int, params: WatchParams
) -> DetectorState:
    """The state after the scores of new labels, in the order of the feedback; unchanged without any."""
    if not observations:
        return detector_state
    detector, labels, alarmed_by = detector_state.detector, detector_state.labels, detector_state.alarmed_by
    asked = detector_state.asked
    for each in observations:
        detector, labels = update_detector(detector, [each]), labels + 1
        evidence = most_likely_change(detector, params.margin).evidence
        alarmed_by = (alarmed_by or labels) if evidence >= params.run_length else None
        asked = asked if evidence >= early_run_length(params) else 0
    added = bucket_of(observations)
    return replace(
        detector_state,
        detector=detector,
        until=until,
        labels=labels,
        total=detector_state.total + added.total,
        weight=detector_state.weight + added.weight,
        alarms=detector_state.alarms + 1 if alarmed_by is not None else 0,
        alarmed_by=alarmed_by,
        asked=asked,
    )


def early_run_length(params: WatchParams) -> float:
    """The evidence that asks for urgent labels: without a change it comes once in so many labels."""
    return min(params.run_length / EARLY, max(RATIO * params.urgent_labels, LEAST))


def position_after(detector_state: DetectorState, until: int) -> DetectorState:
    """The state that has read the feedback up to `until`, of which no label was counted."""
    return replace(detector_state, until=max(until, detector_state.until))

"""The decay part of a check: each independent label is counted once, and a fall is taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from perpetune.monitoring.decay import by_cluster, measure_decay
from perpetune.monitoring.detector_state import DetectorState, position_after, update_state, with_reference
from perpetune.monitoring.independent import cluster_of, independent
from perpetune.monitoring.mix_shift import Scored, decompose
from perpetune.monitoring.window import Window
from perpetune.params import WatchParams
from perpetune.policy.retraining import Decay, MixShift
from perpetune.records import Example, Prediction, RecordedAnswer
from perpetune.statistics.sequential.change_point import WeightedScore, evidence_without, most_likely_change

PARTS_OF_DAY = 4
WHOLE_DAYS = 2  # that reference and labels before a fall must span, so that it can be the time of day


@dataclass(frozen=True)
class LabelledRows:
    """Rows in the order of their labels: those labelled since the last check, and the newest counted before it."""

    new: Sequence[Prediction]
    counted: Sequence[Prediction]
    until: int

    @property
    def all(self) -> list[Prediction]:
        return [*self.counted, *self.new]


@dataclass(frozen=True)
class DecayCheck:
    """The number of new labels, how many of them are independent, the detector's state after them, and the evidence.

    `per_day` are independent labels a day; None if they span less than a day.
    """

    new: int
    independent: int
    detector_state: DetectorState
    decay: Decay | None
    per_day: float | None


def check_decay(
    rows: LabelledRows,
    window: Window,
    reference: Sequence[RecordedAnswer],
    before: DetectorState,
    params: WatchParams,
) -> DecayCheck:
    """Update the detector with each new independent label once, in the order of the feedback."""
    counting = independent(rows.new, rows.counted)
    examples = {row.id: row for row in window.reference}
    detector_state = with_reference(before, by_cluster(_clustered(reference, examples)))
    observed = [WeightedScore(_score(row, window), min(row.weight or 1.0, 1.0)) for row in counting]
    detector_state = position_after(update_state(detector_state, observed, rows.until, params), rows.until)
    newest = [_score(row, window) for row in rows.all[-params.window :]]
    decay = measure_decay(newest, [row.score for row in reference], detector_state, params)
    every = independent(rows.all)
    if decay is not None and decay.alarms:
        mix = _mix(every, decay.labels_since_fall, window, reference, examples)
        decay = replace(decay, mix=mix and replace(mix, evidence=_evidence_within(mix, detector_state, params)))
    return DecayCheck(len(rows.new), len(counting), detector_state, decay, _per_day(every))


def _evidence_within(mix: MixShift, detector_state: DetectorState, params: WatchParams) -> float:
    """The evidence of the fall without the part that comes from the mix."""
    change = most_likely_change(detector_state.detector, params.margin)
    return evidence_without(change, mix.mix, mix.rows, params.margin)


def _score(row: Prediction, window: Window) -> float:
    assert row.label is not None
    return window.score(row.label, row.output)


def _clustered(reference: Sequence[RecordedAnswer], examples: Mapping[str, Example]) -> Iterator[tuple[str, float]]:
    """Each reference row's cluster and score; a row that is no longer in the data is a cluster of its own."""
    for row in reference:
        yield (cluster_of(examples[row.id]) if row.id in examples else row.id), row.score


def _mix(
    rows: Sequence[Prediction],
    since_fall: int,
    window: Window,
    reference: Sequence[RecordedAnswer],
    examples: Mapping[str, Example],
) -> MixShift | None:
    """The fall by label or by time of day, whichever explains more of it; None if neither is known.

    A label that the reference lacks is new, though some of its rows came before the most likely time of the fall.
    """
    before, since = rows[:-since_fall], rows[-since_fall:]
    known = [(examples[row.id], row.score) for row in reference if row.id in examples]
    found = [_by_time_of_day(known, before, since, window)]
    if window.kind == "classification":
        promoted_on = {row.output for row, _ in known}
        then = [Scored(row.output, score) for row, score in known]
        then += [each for each in _by_label(before, window) if not promoted_on or each.part in promoted_on]
        found += [decompose("label", then, _by_label(since, window))]
    return max((each for each in found if each is not None), key=lambda each: each.mix, default=None)


def _by_label(rows: Sequence[Prediction], window: Window) -> list[Scored]:
    return [Scored(str(row.label), _score(row, window), row.weight or 1.0) for row in rows]


def _by_time_of_day(
    known: Sequence[tuple[Example, float]], before: Sequence[Prediction], since: Sequence[Prediction], window: Window
) -> MixShift | None:
    """None if what was before does not span whole days."""
    then = [(row.time, score, 1.0) for row, score in known if row.time] + _timed(before, window)
    times = [time for time, _, _ in then]
    if not times or (max(times) - min(times)).days < WHOLE_DAYS:
        return None
    return decompose("time of day", _by_part(then), _by_part(_timed(since, window)))


def _timed(rows: Sequence[Prediction], window: Window) -> list[tuple[datetime, float, float]]:
    return [(row.time, _score(row, window), row.weight or 1.0) for row in rows]


def _by_part(timed: Sequence[tuple[datetime, float, float]]) -> list[Scored]:
    return [Scored(_part_of_day(time), score, weight) for time, score, weight in timed]


def _part_of_day(time: datetime) -> str:
    """As "06 to 12 UTC"."""
    hours = 24 // PARTS_OF_DAY
    first = time.hour // hours * hours
    return f"{first:02} to {first + hours:02} UTC"


def _per_day(rows: Sequence[Prediction]) -> float | None:
    if not rows:
        return None
    times = [row.time for row in rows]
    days = (max(times) - min(times)).total_seconds() / 86400
    return len(rows) / days if days >= 1 else None

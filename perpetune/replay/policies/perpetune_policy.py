"""perpetune's policy: the functions that `watch` and the schedule use in production."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from perpetune.monitoring.decay import measure_decay, reference_rows
from perpetune.monitoring.detector_state import DetectorState, new_state, update_state
from perpetune.params import Params
from perpetune.policy.retraining import MONTH_DAYS, PastRefresh, RetrainEvidence, labels_of_change, should_retrain
from perpetune.replay.policies.policy import Champion, Observation, Refresh, RetrainCall, cron_times, unsuccessful
from perpetune.statistics.sequential.change_point import WeightedScore

PERPETUNE = "perpetune"


@dataclass
class PerpetunePolicy:
    """Retrains on decay (`should_retrain`, on labels only) and at `refresh.cron`.

    Refreshes without enough new data are skipped (`nothing_new`), and challengers must pass the promotion gate.
    """

    params: Params
    name: str = PERPETUNE
    gated: bool = True
    _champion: Champion | None = field(default=None, repr=False)
    _detector: DetectorState = field(default_factory=new_state, repr=False)
    _newest: list[float] = field(default_factory=list, repr=False)

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        crons = (self.params.watch.cron, self.params.refresh.cron)
        every = heapq.merge(*(cron_times(cron, begins, ends) for cron in crons))
        return (moment for moment, _ in groupby(every))

    def check(self, observation: Observation) -> RetrainCall | None:
        reference = reference_scores(observation.champion, self.params)
        if observation.champion is not self._champion:
            self._champion, self._newest = observation.champion, []
            self._detector = new_state([WeightedScore(score) for score in reference])
        watch = self.params.watch
        self._newest = [*self._newest, *observation.new_scores][-watch.window :]
        self._detector = update_state(
            self._detector, [WeightedScore(score) for score in observation.new_scores], 0, watch
        )
        month = [each for each in observation.refreshes if observation.now - each.time < timedelta(days=MONTH_DAYS)]
        evidence = RetrainEvidence(
            labelled=len(observation.new_scores),
            labelled_in_all=self._detector.labels,
            decay=measure_decay(self._newest, reference, self._detector, watch),
            alarms_in_a_row=self._detector.alarms,
            drift=None,
            minutes_since_refresh=_minutes_since(observation.refreshes, observation.now),
            unsuccessful_refreshes=unsuccessful(observation.refreshes),
            labels_since_refresh=observation.labels_since_refresh,
            device_hours=sum(each.seconds for each in month) / 3600,
            labels_of_change=labels_of_change(
                [PastRefresh(each.trigger, each.labels, each.since_fall) for each in observation.refreshes]
            ),
        )
        verdict = should_retrain(evidence, watch, self.params.refresh)
        if verdict.outcome == "retrain":
            since_fall = evidence.decay.labels_since_fall if evidence.decay else 0
            return RetrainCall(verdict.reasons[0], "decay", since_fall or None)
        return RetrainCall("Scheduled refresh.") if self._is_due(observation.now) else None

    def _is_due(self, now: datetime) -> bool:
        minute = timedelta(minutes=1)
        return next(cron_times(self.params.refresh.cron, now - minute, now), None) == now


def reference_scores(champion: Champion, params: Params) -> list[float]:
    """The champion's scores on its reference rows."""
    return [scored.score for scored in reference_rows(champion.recent, champion.frozen, params.reference)]


def _minutes_since(refreshes: Sequence[Refresh], now: datetime) -> float | None:
    """Minutes since the last refresh ended; None if there was none."""
    if not refreshes:
        return None
    last = refreshes[-1]
    return (now - last.time - timedelta(seconds=last.seconds)) / timedelta(minutes=1)

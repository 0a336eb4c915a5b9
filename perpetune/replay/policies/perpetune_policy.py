"""perpetune's own policy: the very functions by which the watch judges labels and starts a refresh, and the schedule."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from perpetune.monitoring.decay import decay_threshold, measure_decay, reference_rows
from perpetune.monitoring.detector_state import DetectorState, update_state
from perpetune.params import Params
from perpetune.policy.retraining import MONTH_DAYS, RetrainEvidence, should_retrain
from perpetune.replay.policies.policy import Champion, Observation, Refresh, RetrainCall, moments, unsuccessful
from perpetune.statistics.e_detector import new_detector


@dataclass
class PerpetunePolicy:
    """Retrains where `should_retrain` says so, from the labels alone, and at `refresh.cron`.

    Not with too little that is new (`nothing_new`), and challengers must pass the promotion gate.
    """

    params: Params
    name: str = "perpetune"
    gated: bool = True
    _champion: Champion | None = field(default=None, repr=False)
    _watched: DetectorState = field(default_factory=lambda: DetectorState(new_detector(0.0)), repr=False)
    _newest: list[float] = field(default_factory=list, repr=False)

    def checks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        crons = (self.params.watch.cron, self.params.refresh.cron)
        every = heapq.merge(*(moments(cron, begins, ends) for cron in crons))
        return (moment for moment, _ in groupby(every))

    def check(self, observation: Observation) -> RetrainCall | None:
        promised = promised_scores(observation.champion, self.params)
        if observation.champion is not self._champion:
            self._champion, self._newest = observation.champion, []
            self._watched = DetectorState(new_detector(decay_threshold(promised, self.params.watch) or 0.0))
        watch = self.params.watch
        self._newest = [*self._newest, *observation.judged][-watch.window :]
        self._watched = update_state(self._watched, observation.judged, 0, watch)
        month = [each for each in observation.refreshes if observation.now - each.time < timedelta(days=MONTH_DAYS)]
        evidence = RetrainEvidence(
            labelled=len(observation.judged),
            labelled_in_all=self._watched.labels,
            decay=measure_decay(self._newest, promised, self._watched, watch),
            alarms_in_a_row=self._watched.alarms,
            drift=None,
            minutes_since_refresh=_minutes_since(observation.refreshes, observation.now),
            unsuccessful_refreshes=unsuccessful(observation.refreshes),
            labels_since_refresh=observation.labels_since_refresh,
            device_hours=sum(each.seconds for each in month) / 3600,
        )
        verdict = should_retrain(evidence, watch, self.params.refresh)
        if verdict.outcome == "retrain":
            return RetrainCall(verdict.reasons[0], "decay")
        return RetrainCall("The schedule said so.") if self._is_due(observation.now) else None

    def _is_due(self, now: datetime) -> bool:
        minute = timedelta(minutes=1)
        return next(moments(self.params.refresh.cron, now - minute, now), None) == now


def promised_scores(champion: Champion, params: Params) -> list[float]:
    """How well it did on the unseen rows that it is held to."""
    return [scored.score for scored in reference_rows(champion.recent, champion.frozen, params.reference)]


def _minutes_since(refreshes: Sequence[Refresh], now: datetime) -> float | None:
    """Since the last one ended."""
    if not refreshes:
        return None
    last = refreshes[-1]
    return (now - last.time - timedelta(seconds=last.seconds)) / timedelta(minutes=1)

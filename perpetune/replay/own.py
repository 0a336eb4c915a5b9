"""perpetune's own policy: a sequential test of the labels in the order in which they become known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from perpetune.evaluation import e_detector
from perpetune.evaluation.e_detector import Detector
from perpetune.evaluation.estimate import mean_of
from perpetune.params import Params
from perpetune.replay.policy import Champion, Sight, moments


@dataclass
class Own:
    """Retrains where the e-detector has found the champion below its bound, in `watch.persistence` looks in a row,
    outside of the cooldown, and within the month's budget of hours. Challengers must pass the promotion gate.
    """

    params: Params
    name: str = "perpetune"
    gated: bool = True
    _champion: Champion | None = field(default=None, repr=False)
    _detector: Detector = field(default_factory=lambda: e_detector.start(0.0))
    _alarms: int = 0

    def looks(self, begins: datetime, ends: datetime) -> Iterator[datetime]:
        return moments(self.params.watch.cron, begins, ends)

    def look(self, sight: Sight) -> str | None:
        if sight.champion is not self._champion:
            self._champion, self._alarms = sight.champion, 0
            self._detector = e_detector.start(bound_of(sight.champion, self.params))
        self._detector = e_detector.go_on(self._detector, sight.judged)
        if self._detector.evidence < self.params.watch.run_length:
            self._alarms = 0
            return None
        self._alarms += 1
        if self._alarms < self.params.watch.persistence or self._held_up(sight):
            return None
        return (
            f"After {self._detector.seen} labels the evidence of a score below {100 * self._detector.bound:.1f} has "
            f"reached the run length of {self.params.watch.run_length:,.0f}."
        )

    def _held_up(self, sight: Sight) -> bool:
        """Whether the cooldown or the budget forbids a refresh."""
        rules = self.params.refresh
        if not sight.refreshes:
            return False
        in_vain = _in_vain([refresh.promoted for refresh in sight.refreshes])
        cooldown = timedelta(minutes=rules.cooldown_minutes * rules.back_off**in_vain)
        if sight.now - sight.refreshes[-1].time < cooldown:
            return True
        month = [refresh for refresh in sight.refreshes if sight.now - refresh.time < timedelta(days=30)]
        hours = sum(refresh.seconds for refresh in month) / 3600
        return rules.gpu_hours_per_month is not None and hours >= rules.gpu_hours_per_month


def bound_of(champion: Champion, params: Params) -> float:
    """The least that the champion is held to: the lower bound of what it showed on unseen rows, less the margin.

    On the recent holdout alone where that has `reference.min_recent` rows.
    """
    recent = champion.recent if len(champion.recent) >= params.reference.min_recent else ()
    scores = [marked.score for marked in (recent or (*champion.frozen, *champion.recent))]
    return bound_from(scores, params)


def bound_from(scores: Sequence[float], params: Params) -> float:
    estimate = mean_of(
        scores,
        confidence=2 * params.watch.reference_confidence - 1,  # one-sided
        samples=params.evaluate.bootstrap_samples,
        seed=params.evaluate.seed,
    )
    return max(0.0, estimate.low - params.watch.margin)


def _in_vain(promoted: Sequence[bool]) -> int:
    """How many refreshes have ended without a promotion since the last one that had it."""
    count = 0
    for each in reversed(promoted):
        if each:
            break
        count += 1
    return count

"""When labels count: once nearly all of a group have come, because those that come first may be the complaints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

COMPLETE = 0.95  # of a group's labels
NEARLY_ALL = 0.98  # of the requests up to a time, so that the labels up to then count although later ones are missing
LEAST_REQUESTS = 50  # up to that time: of a few, all may be labelled by chance
SETTLED = timedelta(days=7)
"""Age of a request whose label is not waited for any longer, and of those that tell how long labels take."""
LEAST_DELAYS = 20


@dataclass(frozen=True)
class LabelledGroup:
    """Requests asked for together, or all unasked ones: when each was asked (unasked: answered) and first labelled.

    `more` requests of the group, older than all others without a label, have none either.
    """

    requests: Sequence[tuple[datetime, datetime | None]]
    more: int = 0

    @property
    def complete(self) -> bool:
        """Whether nearly all have labels."""
        known = sum(labelled is not None for _, labelled in self.requests)
        return known >= COMPLETE * (len(self.requests) + self.more)

    @property
    def labelled_until(self) -> datetime | None:
        """The newest labelled request up to which nearly all have labels; None if there is none.

        Whoever labels everything a day later is this far: what is newer says nothing of the selection of labels.
        """
        until, labelled = None, 0
        for count, (asked, label) in enumerate(sorted(self.requests, key=lambda each: each[0]), start=1):
            labelled += label is not None
            if label is not None and count >= LEAST_REQUESTS and labelled >= NEARLY_ALL * (count + self.more):
                until = asked
        return until


def ripe(group: LabelledGroup, all_groups: Sequence[LabelledGroup], now: datetime, *, by_lot: bool = True) -> datetime:
    """Requests of the group asked up to then count; all of them if it is complete.

    Otherwise, if no lot drew them, those up to which nearly all have labels, and those that are older than 95% of the delays of labels of requests that are at least `SETTLED` old, but at
    most `SETTLED`. The age of the requests is what makes the delays a fair sample: of younger ones only quick labels are
    known, which are the wrong answers if people complain at once and confirm later.
    """
    if group.complete:
        return max([now, *(asked for asked, _ in group.requests)])  # a gateway's clock may be ahead of ours
    old = now - usual_delay(all_groups, now)
    return old if by_lot else max(old, group.labelled_until or old)


def usual_delay(groups: Sequence[LabelledGroup], now: datetime) -> timedelta:
    """The delay within which 95% of labels come; `SETTLED` if too few are known."""
    delays = sorted(
        max(labelled - asked, timedelta(0))
        for group in groups
        for asked, labelled in group.requests
        if labelled is not None and now - asked >= SETTLED
    )
    if len(delays) < LEAST_DELAYS:
        return SETTLED
    return min(delays[int(COMPLETE * (len(delays) - 1))], SETTLED)


def settled_prefix(asked: Sequence[tuple[datetime, datetime | None]], now: datetime, patience: timedelta) -> int:
    """How many of these requests count, in the order in which they were asked (time asked, time of the first label).

    They are the most, from the first on, of which nearly all are labelled or not waited for any longer. So a label that comes
    quickly because the answer was wrong does not count before the slow ones that were asked for at the same time.
    """
    count = done = 0
    for number, (when, labelled) in enumerate(asked, start=1):
        done += labelled is not None or now - when >= patience
        if done >= COMPLETE * number:
            count = number
    return count

"""Whether labels that came unasked may judge a version: only if their selection is shown not to depend on what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from perpetune.policy.wording import points
from perpetune.statistics.selection_bias import Bias, bias_by_answers, bias_by_confidence, bias_by_lot, pooled

Unasked = Literal["test", "trust", "ignore"]

LEVEL = 0.05  # of each one-sided test
PART = 0.5  # of the margin that the bias may take


@dataclass(frozen=True)
class SelectionRow:
    """A request: its expected accuracy (calibrated confidence), None if unknown; its score, None if it is not labelled.

    `unasked` is whether its label came before anybody asked; `weight` is that of a label by lot, else None. `settled`: it
    is so old that its label would have come by now. `answer` is the predicted label; None for free text.
    """

    confidence: float | None
    score: float | None
    unasked: bool
    weight: float | None = None
    settled: bool = True
    answer: str | None = None


@dataclass(frozen=True)
class Ignorability:
    """Whether unasked labels decide, how many there are and of how many requests, and why, in one sentence.

    `bias` is the best bound on the bias of their mean score; None if nothing bounds it.
    """

    decides: bool
    unasked: int
    requests: int
    reason: str
    bias: Bias | None = None

    def sentences(self) -> tuple[str, ...]:
        """What a verdict says of them; () if there are none."""
        if not self.unasked:
            return ()
        return (
            f"{self.unasked:,} labels came unasked and {'count' if self.decides else 'decide nothing'}: {self.reason}.",
        )


def ignorable(rows: Sequence[SelectionRow], margin: float, setting: Unasked) -> Ignorability:
    """Whether unasked labels decide, from the requests of the time in which they came.

    With `test` they do if the bias of their mean score is shown to be at most half of `margin`:

    - nearly all requests are labelled: the bias is at most the ratio of the others;
    - or their scores are equivalent to those of labels by lot, of the same time;
    - or the confidence of labelled and unlabelled requests is equivalent, scaled by how far it tells right answers from
      wrong ones, and labels by lot do not show otherwise;
    - or the two estimates together are.

    Confidence says nothing of a selection by predicted label, so that the mix of answers must be equivalent too.
    """
    came = [row for row in rows if row.unasked and row.score is not None]

    def verdict(decides: bool, reason: str, bias: Bias | None = None) -> Ignorability:
        return Ignorability(decides, len(came), len(rows), reason, bias)

    if not came:
        return verdict(False, "no labels came unasked")
    if setting != "test":
        return verdict(setting == "trust", f"watch.unasked is {setting}")
    rows = [row for row in rows if row.settled]
    if not any(row.unasked for row in rows):
        return verdict(False, "more labels of the same time may come")
    tolerance = PART * margin
    unlabelled = sum(row.score is None for row in rows)
    if (missing := unlabelled / len(rows)) <= tolerance:
        known = len(rows) - unlabelled
        return verdict(True, f"{known:,} of {len(rows):,} requests are labelled", Bias(0.0, -missing, missing))
    lot, confidence = _by_lot(rows), _by_confidence(rows)
    if lot and lot.shown and not lot.within(tolerance):
        return verdict(False, f"they score {_apart(lot)} than labels by lot", lot)
    if lot and lot.within(tolerance):
        return verdict(True, f"they score like labels by lot ({_interval(lot)})", lot)
    mix = _by_answers(rows)
    if mix and not mix.within(tolerance):
        return verdict(
            False, f"they are of other answers than the rest: that alone may bias them by {_interval(mix)}", mix
        )
    if confidence and confidence.within(tolerance):
        return verdict(
            True, f"they are of requests like the others, by confidence ({_interval(confidence)})", confidence
        )
    if lot and confidence and (both := pooled(lot, confidence, LEVEL)).within(tolerance):
        return verdict(True, f"they are like the others, by lot and by confidence ({_interval(both)})", both)
    if confidence and confidence.shown:
        return verdict(False, f"they are of answers with {_side(confidence)} confidence than the others", confidence)
    best = min((each for each in (lot, confidence) if each), key=lambda each: each.high - each.low, default=None)
    far = f": their bias may be {_interval(best)}" if best else ""
    return verdict(False, f"they are not shown to be like labels by lot within {points(tolerance)}{far}", best)


def _by_lot(rows: Sequence[SelectionRow]) -> Bias | None:
    unasked = [row.score for row in rows if row.unasked and row.score is not None]
    by_lot = [(row.score, row.weight) for row in rows if row.weight is not None and row.score is not None]
    return bias_by_lot(unasked, by_lot, LEVEL)


def _by_confidence(rows: Sequence[SelectionRow]) -> Bias | None:
    sure = [(row, row.confidence) for row in rows if row.confidence is not None]
    return bias_by_confidence(
        [confidence for row, confidence in sure if row.unasked and row.score is not None],
        [confidence for row, confidence in sure if not row.unasked],
        [(confidence, row.score) for row, confidence in sure if row.score is not None],
        LEVEL,
    )


def _by_answers(rows: Sequence[SelectionRow]) -> Bias | None:
    known = [(row, row.answer) for row in rows if row.answer is not None]
    return bias_by_answers(
        [(answer, row.score) for row, answer in known if row.unasked and row.score is not None],
        [answer for row, answer in known if not row.unasked],
        LEVEL,
    )


def _apart(bias: Bias) -> str:
    return f"{points(abs(bias.estimate))} {'higher' if bias.estimate > 0 else 'lower'} ({_interval(bias)})"


def _side(bias: Bias) -> str:
    return "higher" if bias.estimate > 0 else "lower"


def _interval(bias: Bias) -> str:
    return f"{100 * bias.low:+.1f} to {100 * bias.high:+.1f} points"

"""What the gate decides by: paired answers, slices, recalls, limits, costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from perpetune.policy.promotion.costs import AnswerCost
from perpetune.policy.verdict import Interval
from perpetune.policy.wording import significant


@dataclass(frozen=True)
class PairedEvidence:
    """A paired comparison: challenger minus the other system on the same rows.

    One-sided p-values: `p_value` for "the challenger is better", `p_worse` for "it is worse by more than
    promote.slice_margin". `discordance` is the mean squared difference of a row: for scores of 0 and 1 the ratio of rows
    that the two score differently. It exceeds 1 only if rows are weighted. `other` is the mean score of the other system.

    `effective` is the number of independent rows that tell as much, if rows of one group are alike or weights differ.
    `by_betting`: the scores are graded, and the test needs more rows than for scores of 0 and 1.

    If the rows are not labelled but some on which the answers differ: `differing` counts those, `labels` the labelled
    ones among them.
    """

    difference: float
    interval: Interval
    p_value: float
    rows: int
    discordance: float = 1.0
    p_worse: float = 1.0
    other: float | None = None
    effective: int | None = None
    by_betting: bool = False
    differing: int | None = None
    labels: int | None = None


@dataclass(frozen=True)
class TrafficEvidence:
    """The challenger against the champion on stored traffic, from labels of disagreements drawn by lot.

    `recent` includes the rows of the recent holdout and must show the gain; `earlier` includes those of the frozen
    holdout and guards. None if there is no such traffic. `rounds` counts the times that labels were asked for.
    """

    recent: PairedEvidence | None
    earlier: PairedEvidence | None
    rounds: int = 1


@dataclass(frozen=True)
class Anchor:
    """The challenger against the best version that ever served, on the frozen holdout."""

    version: str
    paired: PairedEvidence


@dataclass(frozen=True)
class HoldoutUse:
    """How often a holdout decided: the mean over its `rows` of earlier `verdicts`; `fresh` rows decided none."""

    verdicts: float
    rows: int
    fresh: int

    def __str__(self) -> str:
        if self.fresh == self.rows:
            return f"all {self.rows:,} rows are new"
        times = f"{significant(self.verdicts, 2)} earlier verdict{'s' * (self.verdicts != 1)}"
        return f"{self.rows:,} rows, on average in {times}; {self.fresh:,} are new"


@dataclass(frozen=True)
class MistakeCostEvidence:
    """The mean cost of an answer of the system under test and of what serves, on the frozen holdout.

    `largest` is the largest cost of an answer: scores are 1 less the cost as a ratio of it.
    """

    ours: float
    theirs: float
    largest: float


@dataclass(frozen=True)
class Limit:
    """A measurement that vetoes a promotion if it exceeds `limit`; a limit of None never vetoes.

    `value` was measured on `rows` rows, in `unit`; `setting` is the name of the limit's setting, if it has one. The
    interval's lower end must be within the limit, or the value itself if `interval` is None because it was counted.
    """

    value: float
    interval: Interval | None
    limit: float | None
    rows: int
    unit: str
    setting: str = ""

    @property
    def exceeded(self) -> bool:
        """Whether the limit is exceeded; NaN exceeds every limit."""
        return self.limit is not None and not (self.interval.low if self.interval else self.value) <= self.limit


@dataclass(frozen=True)
class Recall:
    """The recall (0 to 1) of a label on its `rows`, with the recall of the system that serves; None if none serves."""

    value: float
    interval: Interval
    rows: int
    serving: float | None

    def below(self, floor: float) -> bool:
        """Whether it is significantly below the floor, while the system that serves has a higher recall."""
        return self.interval.high < floor and (self.serving is None or self.serving > self.value)


@dataclass(frozen=True)
class Rival:
    """Another system compared with the challenger on the held-out rows that both answered.

    `score` and `challenger` are the two scores in the gate's metric; `lead` is challenger minus rival. `gate` is the
    rival's own evidence against what serves; None if the rival cannot serve or is the base compared with itself.
    `models`, for a linear rival: the other language models by name, each minus the rival.
    """

    score: float
    challenger: float
    lead: PairedEvidence
    gate: PromotionEvidence | None
    models: Mapping[str, PairedEvidence] = field(default_factory=dict)


@dataclass(frozen=True)
class HostedComparison:
    """A system compared with the hosted model's recorded answers, on the same rows and in the gate's metric.

    `score` is the system's, `hosted` that of the hosted model; `lead` is the first minus the second. `left_out` is the
    number of held-out rows without a recorded answer.
    """

    score: float
    hosted: float
    lead: PairedEvidence
    left_out: int = 0


@dataclass(frozen=True)
class PromotionEvidence:
    """The challenger compared with the champion, or with the base if there is no champion yet.

    - `frozen`, `recent`: the holdouts; `recent` is None without newly labelled traffic.
    - `slices`: rows of both holdouts with one label or source ("label positive", "source traffic"); those that are too
      small are tested together, if their inputs are alike: `pooled` has the members by the slice's name, and `small` the
      number of rows of those that are too few even so.
    - `uses`: how often the rows of each holdout decided before, by its name; {} if that is not known.
    - `mistake_costs`: what mistakes cost, if `promote.costs` is set; scores are then by cost.
    - `limits`: other measurements that can veto ("forgetting", "latency").
    - `balanced`: the holdout that must show the gain, in balanced accuracy, if that is the metric; then also `recalls`.
    - `untrained`: what serves was never trained (the base, a prompted version); `refitted`: it is a linear model.
    - `subject`: the system under test; `rivals`: the other systems by name, scored in `metric`.
    - `label_ratios`: the ratio of new labels that join each holdout, by its name.
    - `unasked`: rows of the recent holdout whose labels arrived unasked.
    - `hosted`: each system that may serve, by name, against the hosted model's recorded answers; {} if there are none.
    - `anchor`: the best version that ever served; None if that is the champion.
    - `traffic`: the comparison on stored traffic; None if the holdouts alone decide.
    - `answer_costs`: what answers cost with each system, by its name; they decide nothing.
    - `after_decay`: the refresh is for decay: found now, or before, if more labels of the change have come since.
    """

    frozen: PairedEvidence
    recent: PairedEvidence | None
    against: Literal["champion", "base"]
    slices: Mapping[str, PairedEvidence] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    balanced: PairedEvidence | None = None
    recalls: Mapping[str, Recall] = field(default_factory=dict)
    small: Mapping[str, int] = field(default_factory=dict)
    untrained: bool = False
    refitted: bool = False
    subject: str = "the challenger"
    metric: str = "accuracy"
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    label_ratios: Mapping[str, float] = field(default_factory=dict)
    unasked: int = 0
    hosted: Mapping[str, HostedComparison] = field(default_factory=dict)
    anchor: Anchor | None = None
    traffic: TrafficEvidence | None = None
    answer_costs: Mapping[str, AnswerCost] = field(default_factory=dict)
    pooled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mistake_costs: MistakeCostEvidence | None = None
    uses: Mapping[str, HoldoutUse] = field(default_factory=dict)
    after_decay: bool = False

    @property
    def is_after_decay(self) -> bool:
        """Whether the gate is that after decay: recent traffic, which showed it, judges the challenger too."""
        return self.after_decay and self.against == "champion" and self.recent is not None


def roles(evidence: PromotionEvidence) -> tuple[tuple[str, PairedEvidence], tuple[str, PairedEvidence]]:
    """The holdout that guards and the one that must show a gain, by name."""
    frozen = ("frozen", evidence.frozen)
    recent = ("recent", evidence.recent) if evidence.recent else frozen
    return (frozen, recent) if evidence.against == "champion" else (recent, frozen)

"""What a check of a trial reads from the prediction log, and the labels of disagreements that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from perpetune.evaluation.scores.mistake_costs import deciding_scoring
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.loop.label_rule import label_rule
from perpetune.loop.unasked_labels import unasked_labels
from perpetune.loop.watch.reference import answers, scored_by_cost
from perpetune.model.release import Trial
from perpetune.monitoring.trial_evidence import (
    LabelState,
    Pair,
    canary_evidence,
    comparable,
    disagreements,
    shadow_evidence,
    with_pairs,
)
from perpetune.monitoring.trial_lot import is_drawn, wanted_propensity
from perpetune.monitoring.window import Scorer
from perpetune.policy.ignorable import Ignorability
from perpetune.policy.promotion.cost_margin import margin_by_cost
from perpetune.policy.rollout import TrialEvidence, last_alpha, rules_for_quality, should_release
from perpetune.prediction_log.answers.trial_outcomes import Outcome, outcomes_of, shadow_outcomes
from perpetune.prediction_log.labels.delays import LabelledGroup, ripe
from perpetune.prediction_log.labels.history import past_labels
from perpetune.prediction_log.labels.requests import Drawn, request_labels
from perpetune.prediction_log.labels.rule import LabelRule
from perpetune.records import parse_time
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace

MAX_ROWS = 20_000  # per side and check, from the start of the trial
BATCH = 10  # labels that are asked for at a time, until the last request has come
PROPENSITY = "release.label_propensity"  # tag of the version on trial
NONE_UNASKED = Ignorability(False, 0, 0, "no labels came unasked")


@dataclass(frozen=True)
class TrialLog:
    """The requests of a trial: `pairs` that both versions answered, and a canary's two groups of users."""

    pairs: Sequence[Pair]
    ours: Sequence[Outcome] = ()
    theirs: Sequence[Outcome] = ()

    @property
    def requests(self) -> list[Outcome]:
        """Those that people may have said something of, as the versions' users got them."""
        return [*self.ours, *self.theirs] if self.ours or self.theirs else [one for one, _ in self.pairs]


@dataclass(frozen=True)
class TrialLabels:
    """The evidence of a check, whether unasked labels count in it, and how many labels it asked for."""

    evidence: TrialEvidence
    unasked: Ignorability
    asked: int = 0


@dataclass(frozen=True)
class _Quality:
    """How answers are scored, the score by which two of them differ, and the margin; None: that of the setting."""

    score: Scorer
    apart: Scorer
    margin: float | None = None


def read_evidence(
    workspace: Workspace, log: Engine, challenger: Version, champion: Version, trial: Trial
) -> TrialLabels:
    """The evidence as of now. While nothing is shown, the trial's lot draws what it lacks, and the labels are asked for."""
    rule, quality = label_rule(workspace), _quality(workspace, challenger)
    read = _read(log, challenger, champion, trial, rule)
    unasked = _unasked(workspace, log, rule, read.requests)
    propensity = float(challenger.tags.get(PROPENSITY, 0))
    state = _state(workspace, log, rule, challenger, read.requests, unasked, propensity)
    evidence = _evidence(workspace, read, trial, quality, state)
    if should_release(replace(evidence, requests=0), workspace.params.release).outcome != "continue":
        return TrialLabels(evidence, unasked)
    drawn, state = _draw(workspace, read.pairs, quality, state)
    if len(drawn) < (1 if evidence.requests >= workspace.params.release.max_requests else BATCH):
        return TrialLabels(_evidence(workspace, read, trial, quality, state), unasked)
    asked = _ask(log, challenger, drawn, state)
    read = replace(read, pairs=[_as_asked(pair, {each.id for each in drawn}, state.now) for pair in read.pairs])
    return TrialLabels(_evidence(workspace, read, trial, quality, state), unasked, asked)


def _read(log: Engine, challenger: Version, champion: Version, trial: Trial, rule: LabelRule) -> TrialLog:
    task, since = challenger.task, parse_time(challenger.tags["release.time"])
    if trial.strategy == "shadow":
        pairs = shadow_outcomes(
            log, task, challenger.version, since, MAX_ROWS, rule, every_label=True, answered_by=champion.version
        )
        return TrialLog(pairs)
    answered = shadow_outcomes(
        log, task, champion.version, since, MAX_ROWS, rule, every_label=True, answered_by=challenger.version
    )
    return TrialLog(
        [(theirs, ours) for ours, theirs in answered],
        outcomes_of(log, task, challenger.version, "canary", since, MAX_ROWS, rule, unasked=True),
        outcomes_of(log, task, champion.version, "champion", since, MAX_ROWS, rule, unasked=True),
    )


def _unasked(workspace: Workspace, log: Engine, rule: LabelRule, requests: Sequence[Outcome]) -> Ignorability:
    """Whether unasked labels decide, by the requests of both versions; it is not looked into if there are none."""
    return unasked_labels(workspace, log, rule) if any(each.came_unasked for each in requests) else NONE_UNASKED


def _state(
    workspace: Workspace,
    log: Engine,
    rule: LabelRule,
    challenger: Version,
    requests: Sequence[Outcome],
    unasked: Ignorability,
    propensity: float,
) -> LabelState:
    now = datetime.now(UTC)
    at_once = workspace.params.watch.unasked == "trust" or all(each.labelled is None for each in requests)
    return LabelState(
        version=challenger.version,
        now=now,
        propensity=propensity,
        unasked=unasked.decides,
        client_lot=len({each.propensity for each in requests if each.propensity is not None}) <= 1,
        settled=None if at_once else _settled(log, rule, challenger.task, requests, now),
    )


def _settled(log: Engine, rule: LabelRule, task: str, requests: Sequence[Outcome], now: datetime) -> datetime:
    """Of requests up to then that no lot of the trial drew, nearly all labels that will come have come."""
    group = LabelledGroup([(each.time, each.labelled) for each in requests])
    return ripe(group, [past_labels(log, task, now, rule)], now, by_lot=False)


def _quality(workspace: Workspace, challenger: Version) -> _Quality:
    """As the gate judges it: with `promote.costs` by what answers cost, and within what the champion's mistakes cost."""
    task, rules = workspace.params.task, workspace.params.release
    apart, score = scoring_of(task.kind, task.output_schema).score, deciding_scoring(workspace.params).score
    if workspace.params.promote.costs is None:
        return _Quality(score, apart)
    recorded = answers(challenger.run_id, "champion", workspace.run_folder(challenger.run_id))
    known = [row.score for row in scored_by_cost(workspace, recorded)]
    return _Quality(score, apart, margin_by_cost(rules.margin, sum(known) / len(known)) if known else None)


def _evidence(
    workspace: Workspace, read: TrialLog, trial: Trial, quality: _Quality, state: LabelState
) -> TrialEvidence:
    found = _compared(workspace, read, trial, quality, state)
    if any(each.label is not None for each in read.requests):  # scores that users give are not by cost
        found = replace(found, quality_margin=quality.margin)
    return _counted(found, read, state, unasked_on_trust=workspace.params.watch.unasked == "trust")


def _compared(
    workspace: Workspace, read: TrialLog, trial: Trial, quality: _Quality, state: LabelState
) -> TrialEvidence:
    """Quality on the same requests if both versions have answered some; a canary's else between its two groups."""
    rules = workspace.params.release
    if trial.strategy == "shadow":
        return shadow_evidence(read.pairs, rules, quality.score, state, quality.apart)
    between = canary_evidence(read.ours, read.theirs, rules, quality.score, state)
    if not read.pairs or (len(read.pairs) < rules.min_labels and between.requests >= rules.max_requests):
        return between
    paired = with_pairs(between, read.pairs, rules, quality.score, state, quality.apart)
    has_scores = min(between.quality.rows, between.quality.champion_rows) >= rules.min_labels
    if has_scores and all(each.label is None for each in read.requests):
        return replace(between, awaited=max(between.awaited, paired.awaited))
    return paired


def _counted(evidence: TrialEvidence, read: TrialLog, state: LabelState, *, unasked_on_trust: bool) -> TrialEvidence:
    """The evidence with the number of requests that people said something of, and of those that count only on trust."""
    known = [each for each in read.requests if each.first_feedback is not None]
    counting = [each for each in known if state.drawn(each) or state.counts_undrawn(each)]
    on_trust = [each for each in counting if each.came_unasked] if unasked_on_trust else []
    return replace(evidence, feedback=len(counting), unasked=len(on_trust))


def _draw(
    workspace: Workspace, pairs: Sequence[Pair], quality: _Quality, state: LabelState
) -> tuple[list[Outcome], LabelState]:
    """The requests that the lot draws now, and the state with its propensity."""
    rules = rules_for_quality(workspace.params.release, quality.margin)
    compared = comparable(pairs, rules)
    differing = [theirs for theirs, _ in disagreements(compared, quality.apart)]
    requests = min(len(pairs), rules.max_requests)
    wanted = wanted_propensity(requests, len(compared), len(differing), state.propensity, rules, last_alpha(rules))
    drawn = [each for each in differing if is_drawn(state.version, each.id, wanted)]
    left = rules.labels - sum(each.asked is not None for each in drawn)
    return [each for each in drawn if each.asked is None][: max(left, 0)], replace(state, propensity=wanted)


def _ask(log: Engine, challenger: Version, drawn: Sequence[Outcome], state: LabelState) -> int:
    """Ask for the labels, once the propensity is written down; returns how many are not known yet."""
    if float(challenger.tags.get(PROPENSITY, 0)) != state.propensity:
        registry.tag_version(challenger.task, challenger.version, {PROPENSITY: repr(state.propensity)})
    wanted = [Drawn(each.id, "disagreement", state.propensity) for each in drawn]
    request_labels(log, wanted, state.now, urgent=True)
    return sum(each.label is None for each in drawn)


def _as_asked(pair: Pair, drawn: set[str], now: datetime) -> Pair:
    if pair[0].id not in drawn:
        return pair
    theirs, ours = (replace(each, asked=now, why="disagreement") for each in pair)
    return theirs, ours

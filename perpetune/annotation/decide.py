"""From what several people said to one label for each row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from perpetune.annotation.records import Annotation, Subject
from perpetune.prediction_log.labels.rule import LabelRule


@dataclass(frozen=True)
class Decided:
    """A subject's label, and the newest annotation that gave it."""

    subject: Subject
    label: str
    newest: Annotation


@dataclass(frozen=True)
class Undecided:
    """A subject whose annotators disagree, or whose label cannot be right, and why."""

    subject: Subject
    reason: str


def decide(annotations: Sequence[Annotation], rule: LabelRule) -> tuple[list[Decided], list[Undecided]]:
    """The label that most annotators gave, of final ones if there are any; ties are left undecided."""
    by_subject: dict[str, list[Annotation]] = defaultdict(list)
    for each in newest(annotations):
        by_subject[each.subject.key].append(each)
    decided: list[Decided] = []
    undecided: list[Undecided] = []
    for given in by_subject.values():
        counted = [each for each in given if each.is_final] or given
        found = _decision(counted, rule)
        if isinstance(found, Decided):
            decided.append(found)
        else:
            undecided.append(found)
    return decided, undecided


def newest(annotations: Sequence[Annotation]) -> list[Annotation]:
    """The last that each person said of each subject, the oldest first."""
    by_time = sorted(annotations, key=said_at)
    return list({(each.subject.key, each.annotator): each for each in by_time}.values())


def said_at(annotation: Annotation) -> float:
    """Seconds since 1970; 0 if it is not known."""
    return annotation.time.timestamp() if annotation.time else 0.0


def _decision(given: Sequence[Annotation], rule: LabelRule) -> Decided | Undecided:
    votes = Counter(rule.spelled(each.label) for each in given).most_common()
    label, count = votes[0]
    subject = given[0].subject
    if len(votes) > 1 and votes[1][1] == count:
        shown = ", ".join(f"{label:.40} ({count})" for label, count in votes[:4])
        return Undecided(subject, f"the annotators disagree: {shown}")
    if fault := rule.fault(label):
        return Undecided(subject, fault)
    same = [each for each in given if rule.spelled(each.label) == label]
    return Decided(subject, label, max(same, key=said_at))

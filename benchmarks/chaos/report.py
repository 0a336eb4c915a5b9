"""What was seen: a row a round while it runs, and the sums in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos.faults import Kind


@dataclass(frozen=True)
class RoundResult:
    """Counts are of this round; `acknowledged` and `unacknowledged` are labels.

    `failed_while_served` are the reasons of requests that failed while an engine and a gateway lived. `healthy_after` is
    when all services were healthy again, in seconds from the beginning of the round.
    """

    number: int
    faults: tuple[str, ...]
    operation: str
    ended: str
    answered: int
    failed: int
    failed_while_served: tuple[str, ...]
    retried: int
    acknowledged: int
    unacknowledged: int
    lost_answers: int
    lost_labels: int
    healthy_after: float
    seconds: float
    problems: tuple[str, ...]

    @property
    def requests(self) -> int:
        return self.answered + self.failed

    @property
    def lost(self) -> int:
        return self.lost_answers + self.lost_labels

    @property
    def holds(self) -> bool:
        return not (self.problems or self.failed_while_served or self.lost)

    @property
    def row(self) -> str:
        cells = (
            f"{self.number:>4}",
            f"{' + '.join(self.faults):<46}",
            f"{self.operation}: {self.ended}"[:38].ljust(38),
            f"{self.requests:>8}",
            f"{self.failed:>6}",
            f"{self.acknowledged:>6}",
            f"{self.lost:>4}",
            f"{self.healthy_after:>7.0f}",
            f"{self.seconds:>5.0f}",
        )
        wrong = (*self.problems, *self.failed_while_served)
        return " ".join([*cells, *(f"\n     ! {each}" for each in wrong)])


HEADING = f"{'':>4} {'faults':<46} {'meanwhile':<38} {'requests':>8} {'failed':>6} {'labels':>6} {'lost':>4} {'healthy':>7} {'s':>5}"


@dataclass(frozen=True)
class LastChecks:
    """What did not hold in the end, by the name of the check."""

    wrong: Mapping[str, Sequence[str]]
    seconds: float

    @property
    def problems(self) -> list[str]:
        return [problem for problems in self.wrong.values() for problem in problems]


@dataclass
class Report:
    """`last` is None until the last checks have been made."""

    seed: int
    targets: Mapping[Kind, tuple[str, ...]]
    postgres: str
    rounds: list[RoundResult] = field(default_factory=list)
    restarts: Mapping[str, int] = field(default_factory=dict)
    last: LastChecks | None = None

    def add(self, result: RoundResult) -> None:
        self.rounds.append(result)
        print(result.row, flush=True)

    @property
    def holds(self) -> bool:
        return self.last is not None and not self.last.problems and all(each.holds for each in self.rounds)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.rounds) + (self.last.seconds if self.last else 0)

    @property
    def answered(self) -> int:
        return sum(each.answered for each in self.rounds)

    @property
    def failed_while_served(self) -> list[str]:
        return [why for each in self.rounds for why in each.failed_while_served]

    @property
    def lost_answers(self) -> int:
        return sum(each.lost_answers for each in self.rounds)

    @property
    def lost_labels(self) -> int:
        return sum(each.lost_labels for each in self.rounds)

    def show(self) -> None:
        values = {
            "rounds": len(self.rounds),
            "faults": sum(len(each.faults) for each in self.rounds),
            "requests": sum(each.requests for each in self.rounds),
            "failed": sum(each.failed for each in self.rounds),
            "failed while an engine and a gateway lived": len(self.failed_while_served),
            "answered after another gateway was asked": sum(each.retried for each in self.rounds),
            "acknowledged answers": self.answered,
            "acknowledged answers lost": self.lost_answers,
            "acknowledged labels": sum(each.acknowledged for each in self.rounds),
            "acknowledged labels lost": self.lost_labels,
            "labels that were not acknowledged in time": sum(each.unacknowledged for each in self.rounds),
            "seconds": round(self.seconds),
        }
        print("\n".join(["", f"seed {self.seed}", *(f"{name:<44} {value:>8}" for name, value in values.items())]))
        print("restarts:", ", ".join(f"{name} {count}" for name, count in self.restarts.items()) or "none")
        for kind, names in self.targets.items():
            if not names:
                print(f"not tried here: {kind} (docs/guides/chaos.md says what it needs)")
        for name, problems in self.last.wrong.items() if self.last else ():
            print(*(f"! {name}: {each}" for each in problems), sep="\n", end="\n" if problems else "")
        print("everything holds" if self.holds else "something does not hold")

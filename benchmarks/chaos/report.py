"""The table: a row a round while it runs, and the sums in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos.faults import Kind


@dataclass(frozen=True)
class RoundResult:
    """`requests` were answered or failed, `acknowledged` are labels, `lost` is of all so far."""

    number: int
    faults: tuple[str, ...]
    operation: str
    ended: str
    requests: int
    failed: int
    acknowledged: int
    lost: int
    seconds: float
    problems: tuple[str, ...]

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
            f"{self.seconds:>5.0f}",
        )
        return " ".join([*cells, *(f"\n     ! {each}" for each in self.problems)])


HEADING = f"{'':>4} {'faults':<46} {'meanwhile':<38} {'requests':>8} {'failed':>6} {'labels':>6} {'lost':>4} {'s':>5}"


@dataclass
class Report:
    """`failed_while_served` are the reasons of requests that failed while an engine and a gateway lived."""

    seed: int
    targets: Mapping[Kind, tuple[str, ...]]
    rounds: list[RoundResult] = field(default_factory=list)
    answered: int = 0
    labels: int = 0
    failed: int = 0
    retried: int = 0
    unacknowledged: int = 0
    lost_answers: int = 0
    lost_labels: int = 0
    failed_while_served: Sequence[str] = ()
    restarts: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    def add(self, result: RoundResult) -> None:
        if not self.rounds:
            print(f"seed {self.seed}\n{HEADING}", flush=True)
        self.rounds.append(result)
        print(result.row, flush=True)

    @property
    def holds(self) -> bool:
        broken = self.problems or self.failed_while_served or any(each.problems for each in self.rounds)
        return not (broken or self.lost_answers or self.lost_labels)

    def show(self) -> None:
        faults = sum(len(each.faults) for each in self.rounds)
        values = {
            "rounds": len(self.rounds),
            "faults": faults,
            "requests": self.answered + self.failed,
            "failed": self.failed,
            "failed while an engine and a gateway lived": len(self.failed_while_served),
            "answered after another gateway was asked": self.retried,
            "acknowledged answers": self.answered,
            "acknowledged answers lost": self.lost_answers,
            "acknowledged labels": self.labels,
            "acknowledged labels lost": self.lost_labels,
            "labels that nobody acknowledged in time": self.unacknowledged,
            "seconds": round(self.seconds),
        }
        print("\n".join(["", f"seed {self.seed}", *(f"{name:<44} {value:>8}" for name, value in values.items())]))
        print("restarts:", ", ".join(f"{name} {count}" for name, count in self.restarts.items()) or "none")
        for kind, names in self.targets.items():
            if not names:
                print(f"not tried here: {kind} (docs/guides/chaos.md says what it needs)")
        for each in dict.fromkeys([*self.failed_while_served, *self.problems]):
            print(f"! {each}")
        print("everything holds" if self.holds else "something does not hold")

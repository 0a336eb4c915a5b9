"""The pages of the benchmarks, from what they wrote into benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_text import ROOT, code, linked, table

RESULTS = ROOT / "benchmarks" / "results"
INDEX = "benchmarks/index.md"
# What a result is about: a title, and what the numbers were measured with.
ABOUT = {
    "after_decay": ("The gate after decay", "1,000 simulations for each line, 150 or 250 rows in each holdout"),
    "by_cost": ("Judging by cost", "1,000 simulations for each line, 200 for false alarms"),
    "chaos": ("Breaking it on purpose", "one run; docs/guides/chaos.md says what each round broke"),
    "curation_quality": (
        "What curation finds, and what a model learns from it",
        "2,000 film reviews, 1,271 clauses of contracts, 2,000 and 4,003 rows of banking77; linear models with five seeds, the language model with three and six",
    ),
    "curation_speed": ("Seconds, memory and growth of curation", "10,000 and 100,000 rows, one run"),
    "decay": ("Error rates and delay of the decay monitor", "1,000 simulated histories for each line, 200 for ADWIN"),
    "decisions": ("Error rates of the decisions", "1,000 simulations for each line"),
    "evaluation-reviews": ("Scoring of labels", "200 rows, two rounds"),
    "few_labels": ("The gate with few, dependent and biased labels", "1,000 simulations for each line"),
    "gpu-training-lora": ("Training on a GPU: LoRA", "one round"),
    "gpu-training-qlora": ("Training on a GPU: QLoRA", "one round"),
    "input_drift": (
        "Drift of inputs: false alarms and power",
        "20 or 40 windows of each change, 120 without one, 12 years",
    ),
    "label_rules": ("Labels from rules", "10 drawings of 6 kinds, 1,000 rows each, and two sets of real rows"),
    "log_queries-postgresql": (
        "Reads of a long prediction log: PostgreSQL",
        "a median of five, a year of made requests, 1% labelled",
    ),
    "log_queries-sqlite": (
        "Reads of a long prediction log: SQLite",
        "a median of five, a year of made requests, 1% labelled",
    ),
    "mix": ("Recent traffic with replay", "412 old and 200 recent rows, one training each"),
    "recipe": ("What the defaults achieve", "300 rows, one training each; 60 beside the base with examples"),
    "replay": ("Policies on recorded streams", "5 x 2,400, 1,884 and 5 x 2,000 requests"),
    "scale-postgresql": (
        "Growth with requests and versions: PostgreSQL",
        "a median of three, a year of made requests, 1% labelled",
    ),
    "scale-sqlite": (
        "Growth with requests and versions: SQLite",
        "a median of three, a year of made requests, 1% labelled",
    ),
    "gateway-cost": ("Cost of a request in the gateway: two cores", "1,600 requests, three rounds"),
    "gateway-cost-own-cores": (
        "Cost of a request in the gateway: a core for each process",
        "1,600 requests, three rounds",
    ),
    "serving-overhead": ("Overhead of the gateway", "48 to 144 requests, three rounds"),
    "serving-swaps": ("Change of the champion under load", "10,000 requests, one run"),
    "trials": ("Error rates of trials", "1,000 trials of each kind, 2,000 requests each"),
    "unasked": ("When unasked labels decide", "1,000 logs of each kind"),
    "year": ("A simulated year", "6,240 requests, one run"),
    "training-banking77": ("Training on a CPU: 77 intents", "one round; 24 rows for the accuracy"),
    "training-reviews": ("Training on a CPU: reviews", "one round; 200 rows for the accuracy"),
}


@dataclass(frozen=True)
class Result:
    name: str
    title: str
    n: str
    record: dict[str, Any]

    @property
    def page(self) -> str:
        return f"benchmarks/{self.name}.md"

    @property
    def plots(self) -> list[Path]:
        return [*RESULTS.glob(f"{self.name}.png"), *sorted(RESULTS.glob(f"{self.name}-*.png"))]


def results() -> tuple[Result, ...]:
    """Every result, by file name. Raises KeyError for one that `ABOUT` does not describe."""
    return tuple(
        Result(path.stem, *ABOUT[path.stem], json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(RESULTS.glob("*.json"))
    )


def result_page(result: Result) -> str:
    record = result.record
    facts = [
        ("Measured on", str(record["device"])),
        ("n", result.n),
        ("Commit", code(str(record["commit"])[:12])),
        ("Seconds", f"{record['seconds']:,.0f}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]
    rows = [_claim(claim) for claim in record["claims"]]
    plots = [f"![{result.title}]({plot.name})" for plot in result.plots]
    parts = [
        f"# {result.title}",
        "Generated from the JSON file that the benchmark wrote. A claim without an interval was measured once.",
        table(["Claim", "Value", "Interval", "Goal", "Holds"], rows),
        *plots,
        table(["", ""], facts),
    ]
    return linked("\n\n".join(parts) + "\n", result.page)


def _claim(claim: dict[str, Any]) -> tuple[str, ...]:
    low, high = claim["interval"]
    interval = "" if low == high else f"{number(low)} to {number(high)}"
    return (
        claim["claim"],
        number(claim["value"]),
        interval,
        number(claim["goal"]),
        "yes" if claim["holds"] else "**no**",
    )


def number(value: float) -> str:
    """Four digits at most, and no exponent that a reader must decode."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def index_page() -> str:
    rows = [
        (
            f"[{result.title}]({result.name}.md)",
            result.n,
            f"{sum(claim['holds'] for claim in result.record['claims'])} of {len(result.record['claims'])}",
            str(result.record["device"]),
        )
        for result in results()
    ]
    return linked(
        "# Benchmarks\n\n"
        "Each page is one run of a script in `benchmarks/`, with its claims, their intervals (95% if not said otherwise) "
        "and the goal that was set before. What missed its goal is listed too.\n\n"
        + table(["Benchmark", "n", "Claims that hold", "Device"], rows)
        + "\n`make bench` repeats what runs on two cores.\n",
        INDEX,
    )


def benchmark_pages() -> Iterator[tuple[str, str]]:
    yield INDEX, index_page()
    yield from ((result.page, result_page(result)) for result in results())


def benchmark_plots() -> Iterator[tuple[str, Path]]:
    for result in results():
        yield from ((f"benchmarks/{plot.name}", plot) for plot in result.plots)

"""The gateway's overhead over vLLM, and ten promotions with two rollbacks under load.

    make vllm && python benchmarks/serving.py
    python benchmarks/serving.py --quick

A closed-loop load generator drives vLLM directly and through the gateway alternately, with the same prompts and adapter, at
1, 8 and 64 clients. "added" is the latency beyond the gateway's wait for vLLM: parsing, routing, logging and a connection.
Then, on a tiny base, 10,000 requests while the champion changes ten times and is rolled back twice; each answer must name a
version that was champion during the request, and must not be an answer that only another version gives to that prompt.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.load import ClientRequest, Target, drive
from shared.record import Claim, write
from tqdm import tqdm

if TYPE_CHECKING:
    from shared.stage import Stage

PARTS = ("overhead", "swaps")
CLIENTS = (1, 8, 64)
THROUGHPUT_GOAL = 0.95
P50_GOAL_MS = 2.0
P99_GOAL_MS = 10.0
SWAP_CLIENTS = 16


@dataclass(frozen=True)
class Turn:
    """A measurement of a target: latencies and added latencies in milliseconds."""

    target: str
    clients: int
    round: int
    requests: int
    failed: int
    per_second: float
    p50: float
    p99: float
    added_p50: float | None
    added_p99: float | None


@dataclass(frozen=True)
class Change:
    """A change of the champion: `began` and `ended` in seconds on the clock of the requests."""

    kind: str
    version: str
    began: float
    ended: float


def main() -> int:
    asked = _arguments()
    prompts = _prompts(asked.assets, asked.prompts)
    claims: list[Claim] = []
    for part in asked.parts:
        claims += _overhead(asked, prompts) if part == "overhead" else _swaps(asked, prompts)
    return 0 if all(claim.holds for claim in claims) else 1


def _overhead(asked: argparse.Namespace, prompts: Sequence[str]) -> list[Claim]:
    from shared.stage import stage

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        with stage(Path(folder), asked.assets, prompts, versions=1, golden=8, tiny=False) as ready:
            turns = overhead(ready, prompts, asked.rounds, asked.requests)
    if not asked.quick:
        draw_overhead(turns)
    details = {"turns": [asdict(turn) for turn in turns]}
    return _told("serving-overhead", claims_of_overhead(turns), details, began, asked.quick)


def _swaps(asked: argparse.Namespace, prompts: Sequence[str]) -> list[Claim]:
    from shared.stage import stage

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        with stage(Path(folder), asked.assets, prompts, asked.swaps + 1, golden=8, tiny=True) as ready:
            expected = references(ready, prompts)
            changes, answered = swaps(ready, prompts, asked.swap_requests, asked.swaps, asked.rollbacks)
    if not asked.quick:
        draw_swaps(changes, answered)
    found = claims_of_swaps(expected, changes, answered)
    return _told("serving-swaps", found, _details(changes, answered), began, asked.quick)


def _told(name: str, claims: list[Claim], details: object, began: float, quick: bool) -> list[Claim]:
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g} "
            f"({claim.interval[0]:.4g} to {claim.interval[1]:.4g}), goal {claim.goal:g}"
        )
    if not quick:
        print(write(name, claims, details, time.monotonic() - began))
    return claims


def _details(changes: Sequence[Change], answered: Sequence[ClientRequest]) -> dict[str, object]:
    start = min(each.began for each in answered)
    return {
        "changes": [
            {
                "kind": change.kind,
                "version": change.version,
                "at": change.ended - start,
                "took": change.ended - change.began,
            }
            for change in changes
        ],
        "seconds": [asdict(second) for second in seconds_of(answered)],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--requests", type=int, default=192, help="per target, number of clients and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--swap-requests", type=int, default=10_000)
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--rollbacks", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="few requests, one round, no output files")
    asked = parser.parse_args()
    if asked.quick:
        asked.requests, asked.rounds, asked.swap_requests, asked.swaps, asked.prompts = 64, 1, 400, 3, 8
        asked.rollbacks = 1
    return asked


def _prompts(assets: Path, count: int) -> list[str]:
    from perpetune.curation.readers.reviews import find_wheel, product_examples

    return [row.input for row in product_examples(find_wheel(assets), ("negative", "positive"))][:count]


def overhead(ready: Stage, prompts: Sequence[str], rounds: int, requests: int) -> list[Turn]:
    """Measure both targets alternately. Direct requests use the name that the gateway gave the champion's adapter."""
    from shared.stage import INSTRUCTION, MAX_TOKENS, TASK, adapter_in

    targets = (
        Target("direct", ready.vllm, adapter_in(ready.vllm), INSTRUCTION),
        Target("gateway", ready.gateway, TASK, None),
    )
    for target in targets:  # warm-up
        drive(target, prompts, clients=8, requests=len(prompts), max_tokens=MAX_TOKENS)
    turns = []
    for turn in range(rounds):
        for clients in CLIENTS:
            count = max(clients, requests if clients > 1 else requests // 3)
            for target in targets[:: 1 if turn % 2 == 0 else -1]:
                done = drive(target, prompts, clients=clients, requests=count, max_tokens=MAX_TOKENS)
                turns.append(_turn(target.name, clients, turn + 1, done))
                _print(turns[-1])
    return turns


def _turn(target: str, clients: int, number: int, done: Sequence[ClientRequest]) -> Turn:
    took = [1000 * each.seconds for each in done]
    added = [1000 * (each.seconds - each.engine) for each in done if each.engine is not None]
    seconds = max(each.began + each.seconds for each in done) - min(each.began for each in done)
    return Turn(
        target=target,
        clients=clients,
        round=number,
        requests=len(done),
        failed=sum(each.status != 200 for each in done),
        per_second=len(done) / seconds,
        p50=statistics.median(took),
        p99=_quantile(took, 0.99),
        added_p50=statistics.median(added) if added else None,
        added_p99=_quantile(added, 0.99) if added else None,
    )


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _print(turn: Turn) -> None:
    added = f"  added p50 {turn.added_p50:.2f}, p99 {turn.added_p99:.2f} ms" if turn.added_p50 is not None else ""
    print(
        f"round {turn.round}  {turn.clients:3} clients  {turn.target:8} {turn.per_second:7.2f} requests/s  "
        f"p50 {turn.p50:8.1f}, p99 {turn.p99:8.1f} ms  {turn.failed} failed{added}",
        flush=True,
    )


def references(ready: Stage, prompts: Sequence[str]) -> dict[str, list[str]]:
    """Each version's answer to each prompt, from vLLM directly."""
    from shared.stage import INSTRUCTION, MAX_TOKENS, reference

    expected: dict[str, list[str]] = {}
    for version, adapter in ready.adapters.items():
        with reference(ready.vllm, version, adapter) as name:
            target = Target("direct", ready.vllm, name, INSTRUCTION)
            found = drive(target, prompts, clients=8, requests=len(prompts), max_tokens=MAX_TOKENS)
        expected[version] = [each.text.strip() for each in sorted(found, key=lambda each: each.prompt)]
    return expected


def swaps(
    ready: Stage, prompts: Sequence[str], requests: int, count: int, rollbacks: int
) -> tuple[list[Change], list[ClientRequest]]:
    """Drive the gateway while the champion changes every so many requests."""
    from shared.stage import MAX_TOKENS, TASK

    plan = _plan(list(ready.adapters), count, rollbacks)
    due = [round(requests * (position + 1) / (len(plan) + 1)) for position in range(len(plan))]
    changes: list[Change] = []
    done_so_far = 0
    finished = threading.Event()

    def change_when_due() -> None:
        for when, (kind, version) in zip(due, plan, strict=True):
            while done_so_far < when and not finished.is_set():
                time.sleep(0.01)
            changes.append(_change(ready, kind, version))

    with tqdm(total=requests, unit="request", file=sys.stderr) as bar:

        def report(done: int) -> None:
            nonlocal done_so_far
            done_so_far = done
            bar.update(1)

        changer = threading.Thread(target=change_when_due)
        changer.start()
        answered = drive(
            Target("gateway", ready.gateway, TASK, None),
            prompts,
            clients=SWAP_CLIENTS,
            requests=requests,
            max_tokens=MAX_TOKENS,
            report=report,
        )
        finished.set()
        changer.join()
    return changes, answered


def _plan(versions: Sequence[str], count: int, rollbacks: int) -> list[tuple[str, str]]:
    """Promotions in order, with a rollback after every (count / rollbacks)th."""
    plan: list[tuple[str, str]] = []
    every = max(1, count // max(1, rollbacks))
    for number in range(1, count + 1):
        plan.append(("promote", versions[number]))
        if number % every == 0 and number // every <= rollbacks:
            plan.append(("roll back", versions[number - 1]))
    return plan


def _change(ready: Stage, kind: str, version: str) -> Change:
    import httpx
    from shared.stage import TASK

    from perpetune.tracking import registry

    began = time.perf_counter()
    if kind == "promote":
        registry.promote(TASK, version)
        response = httpx.post(f"{ready.gateway}/v1/release/check", timeout=120).json()
        serving = response["serving"]
    else:
        body = {"task": TASK, "reason": "benchmark"}
        response = httpx.post(f"{ready.gateway}/v1/release/rollback", json=body, timeout=120).json()
        serving = response.get("to")
    change = Change(kind, version, began, time.perf_counter())
    tqdm.write(f"{kind} {version}: {change.ended - began:.2f} s")
    if serving != version:
        raise SystemExit(f"{kind} {version} did not happen: {response}")
    return change


def claims_of_overhead(turns: Sequence[Turn]) -> list[Claim]:
    claims = []
    for clients in CLIENTS:
        ours = [turn for turn in turns if (turn.target, turn.clients) == ("gateway", clients)]
        theirs = [turn for turn in turns if (turn.target, turn.clients) == ("direct", clients)]
        ratios = [a.per_second / b.per_second for a, b in zip(ours, theirs, strict=True)]
        value = statistics.mean(ratios)
        name = f"{clients} clients" if clients > 1 else "1 client"
        claims.append(
            Claim(
                f"throughput relative to direct, {name}",
                value,
                (min(ratios), max(ratios)),
                THROUGHPUT_GOAL,
                value >= THROUGHPUT_GOAL,
            )
        )
        for quantile, goal in (("added_p50", P50_GOAL_MS), ("added_p99", P99_GOAL_MS)):
            found = [float(getattr(turn, quantile)) for turn in ours]
            value = statistics.mean(found)
            claims.append(
                Claim(
                    f"milliseconds added, {quantile.removeprefix('added_')}, {name}",
                    value,
                    (min(found), max(found)),
                    goal,
                    value <= goal,
                )
            )
    failed = sum(turn.failed for turn in turns)
    claims.append(Claim("requests failed while measuring", failed, (failed, failed), 0, failed == 0))
    return claims


def claims_of_swaps(
    expected: dict[str, list[str]], changes: Sequence[Change], answered: Sequence[ClientRequest]
) -> list[Claim]:
    failed = sum(each.status != 200 for each in answered)
    unloaded = sum(each.status == 200 and _version(each) not in _serving(each, expected, changes) for each in answered)
    strange = sum(each.status == 200 and _answer_of_another(each, expected) for each in answered)
    worst = max(second.median for second in seconds_of(answered))
    usual = statistics.median(each.seconds for each in answered)
    rollbacks = [change.ended - change.began for change in changes if change.kind == "roll back"]
    exact = (
        (f"of {len(answered)} requests failed while the champion changed", failed, 0.0),
        ("answers by a version that was not champion then", unloaded, 0.0),
        ("answers that only another version gives", strange, 0.0),
        ("seconds until the slowest rollback served", max(rollbacks, default=0.0), 1.0),
    )
    claims = [Claim(name, value, (value, value), goal, value <= goal) for name, value, goal in exact]
    ratio = worst / usual
    return [
        *claims,
        Claim("worst second's median latency over the overall one", ratio, (ratio, ratio), 10.0, ratio <= 10),
    ]


def _version(each: ClientRequest) -> str:
    return each.model.rpartition("@")[2]


def _serving(each: ClientRequest, expected: dict[str, list[str]], changes: Sequence[Change]) -> set[str]:
    """The versions that were champion at some time during a request."""
    serving = {next(iter(expected))}
    for change in changes:
        if change.began > each.began + each.seconds:
            break
        serving = {change.version} if change.ended < each.began else serving | {change.version}
    return serving


def _answer_of_another(each: ClientRequest, expected: dict[str, list[str]]) -> bool:
    text = each.text.strip()
    answer = expected[_version(each)][each.prompt]
    return text != answer and any(text == texts[each.prompt] for texts in expected.values())


@dataclass(frozen=True)
class Second:
    """The latencies in seconds of each second of the run."""

    began: float
    answers: int
    median: float
    slowest: float


def seconds_of(answered: Sequence[ClientRequest]) -> list[Second]:
    start = min(each.began for each in answered)
    by_second: dict[int, list[float]] = {}
    for each in answered:
        by_second.setdefault(int(each.began + each.seconds - start), []).append(each.seconds)
    return [
        Second(float(second), len(found), statistics.median(found), max(found))
        for second, found in sorted(by_second.items())
    ]


def draw_overhead(turns: Sequence[Turn]) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png

    with house_style():
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        axes = figure.subplots(1, len(CLIENTS))
        for clients, part in zip(CLIENTS, axes, strict=True):
            for position, (target, shade) in enumerate((("direct", "base"), ("gateway", "challenger"))):
                found = [turn.per_second for turn in turns if (turn.target, turn.clients) == (target, clients)]
                bars = part.bar([position], [statistics.mean(found)], 0.6, color=colour(shade))
                part.bar_label(bars, [f"{statistics.mean(found):.2f}"], padding=2)
            part.set_xticks([0, 1], ["vLLM", "gateway"])
            part.set_title(f"{clients} clients" if clients > 1 else "1 client")
            part.margins(y=0.15)
        axes[0].set_ylabel("requests/s")
        write_png(figure, Path(__file__).parent / "results" / "serving-overhead.png")


def draw_swaps(changes: Sequence[Change], answered: Sequence[ClientRequest]) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png

    with house_style():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        axes = figure.subplots()
        start = min(each.began for each in answered)
        seconds = seconds_of(answered)
        axes.plot([each.began for each in seconds], [each.median for each in seconds], color=colour("challenger"))
        for change in changes:
            style = ("base", "-") if change.kind == "promote" else ("champion", "--")
            axes.axvline(change.ended - start, color=colour(style[0]), linewidth=0.8, linestyle=style[1])
        axes.set_xlabel("seconds; lines: the champion changed (dashed: rolled back)")
        axes.set_ylabel("median latency of a second, s")
        axes.set_ylim(bottom=0)
        write_png(figure, Path(__file__).parent / "results" / "serving-swaps.png")


if __name__ == "__main__":
    sys.exit(main())

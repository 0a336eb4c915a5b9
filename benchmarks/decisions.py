"""Error rates of the decisions: promotions of challengers that are no better, and false alarms of decay.

    make setup && pip install river && python benchmarks/decisions.py

Promotions: answers of a champion and a challenger are simulated, and the product's tests, slices and gate decide. "A/A"
compares a model with itself. Alarms: streams of right and wrong answers, 50 labels a window, for perpetune's e-detector,
Evidently's default test for such a column (the two-sided z test, p below 0.05), a fixed threshold (the window's mean below
the reference's by more than the margin) and river's ADWIN (delta 0.002). A drop within the margin is by definition no
decay, so perpetune is shown without a margin too. Then the same on real answers of SmolLM2 to product and film reviews,
with rows drawn with replacement.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from alarms import (
    ADWINS,
    EVIDENTLYS,
    FIXED,
    OURS,
    WINDOW,
    Delay,
    Method,
    RunLength,
    Source,
    adwin,
    answers,
    delay,
    evidently,
    evidently_p,
    fixed,
    ours,
    resampled,
    run_length,
    run_length_at_bound,
)
from promotions import OUTCOMES, Scenario, Verdicts, drawn, simulate
from promotions import resampled as resampled_rows
from real_answers import Answered, real_answers
from record import Claim, write

from perpetune.params import Params, load_params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACY = 0.85
DISCORDANCE = 0.10  # of two answers of the same model: one row in ten differs
ROWS = 500  # in each holdout, and in the reference of the monitor
WINDOWS = 1000
FALSE_PROMOTIONS, POWER = 0.05, 0.9
AFTER = 10_000  # labels after a drop
NO_MARGIN = f"{OURS}, margin 0"
SHADES = {OURS: "challenger", NO_MARGIN: "champion", EVIDENTLYS: "wrong", FIXED: "linear", ADWINS: "base"}


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    params = load_params(Path("params.yaml"))
    verdicts = promotions(params, asked.simulated)
    _check_evidently()
    lengths = stable_histories(params, asked.histories, asked.adwin_histories, WINDOWS * WINDOW // asked.shorter)
    delays = drops(params, asked.histories, asked.adwin_histories)
    real = real_answers(asked.assets, asked.held_out) if asked.held_out else []
    if real:
        verdicts += real_promotions(real, params, asked.simulated)
        real_lengths, real_delays = real_alarms(real, params, asked.histories, asked.adwin_histories, asked.shorter)
        lengths, delays = [*lengths, *real_lengths], [*delays, *real_delays]
    claims = claims_of(verdicts, lengths, params, quick=asked.quick)
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g} "
            f"({claim.interval[0]:.4g} to {claim.interval[1]:.4g}), goal {claim.goal:g}"
        )
    details = {
        "promotions": [asdict(each) for each in verdicts],
        "quiet": [asdict(each) for each in lengths],
        "drops": [asdict(each) for each in delays],
        "promote": params.promote.model_dump(),
        "watch": params.watch.model_dump(),
    }
    if not asked.quick:
        print(write("decisions", claims, details, time.monotonic() - began))
        draw(verdicts, lengths, delays, params)
    return 0 if all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--simulated", type=int, default=1000, help="promotions of each kind")
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--adwin-histories", type=int, default=200, help="histories for ADWIN, which is slow")
    parser.add_argument("--held-out", type=int, default=300, help="real rows of each kind; 0 skips the model")
    parser.add_argument("--quick", action="store_true", help="few and short histories, no model, no output files")
    asked = parser.parse_args()
    asked.shorter = 1
    if asked.quick:
        asked.simulated, asked.histories, asked.adwin_histories, asked.held_out = 50, 20, 5, 0
        asked.shorter = 4
    return asked


def promotions(params: Params, simulated: int) -> list[Verdicts]:
    """Scenarios with simulated answers and the same accuracy of the champion."""
    same, unsteady = drawn(ACCURACY, DISCORDANCE), drawn(ACCURACY, 2 * DISCORDANCE)
    better, much_better = (drawn(ACCURACY, DISCORDANCE, gain=gain) for gain in (0.05, 0.08))
    unsteady_better = drawn(ACCURACY, 2 * DISCORDANCE, gain=0.05)
    worse, spoilt = drawn(ACCURACY, DISCORDANCE, gain=-0.05), drawn(ACCURACY, DISCORDANCE, gain=0.08, lost=0.3)
    scenarios = (
        Scenario("A/A", same, same, ROWS, "false promotions"),
        Scenario("A/A, no recent holdout", same, None, ROWS, "false promotions"),
        Scenario("A/A, twice the discordance", unsteady, unsteady, ROWS, "false promotions"),
        Scenario("A/A", same, same, 100, "false promotions"),
        Scenario("better by 5 points, on frozen only", better, same, ROWS, "false promotions"),
        Scenario("better by 5 points", better, better, ROWS, "promoted"),
        Scenario("better by 5 points, no recent holdout", better, None, ROWS, "promoted"),
        Scenario("better by 5 points, on recent only", same, better, ROWS),
        Scenario("better by 5 points, twice the discordance", unsteady_better, unsteady_better, ROWS),
        Scenario("better by 5 points", better, better, 200),
        Scenario("better by 5 points", better, better, 100),
        Scenario("better by 8 points", much_better, much_better, 200),
        Scenario("worse by 5 points", worse, worse, ROWS),
        Scenario("better by 8 points, the rarest label worse by 30", spoilt, spoilt, ROWS),
    )
    return [_told(simulate(scenario, simulated, params, seed)) for seed, scenario in enumerate(scenarios)]


def real_promotions(real: Sequence[Answered], params: Params, simulated: int) -> list[Verdicts]:
    """Scenarios with rows of product reviews, drawn with replacement."""
    found = {each.system: each for each in real if each.rows == "products"}
    base, short, longer = (found[system] for system in ("base", "short", "longer"))
    again = resampled_rows(longer.chance, longer.chance, longer.labels, chances=True)
    scenarios = [
        Scenario("real: A/A, answers sampled from the model's probabilities", again, again, ROWS, "false promotions")
    ]
    for name, one, other in (
        ("real: fine-tuned on 320 against on 80", short, longer),
        ("real: fine-tuned on 80 against on 320", longer, short),
        ("real: fine-tuned on 320 against the base", base, longer),
    ):
        rows = resampled_rows(one.right, other.right, one.labels, chances=False)
        points = 100 * (np.mean(other.right) - np.mean(one.right))
        scenarios += [Scenario(f"{name} ({points:+.1f} points)", rows, rows, count) for count in (ROWS, 100)]
    return [_told(simulate(scenario, simulated, params, seed)) for seed, scenario in enumerate(scenarios, start=100)]


def _told(found: Verdicts) -> Verdicts:
    shares = "  ".join(f"{outcome} {_share(found.shares[outcome])}" for outcome in OUTCOMES)
    print(f"{found.scenario:62} {found.rows:4} rows  discordance {found.discordance:.2f}  {shares}", flush=True)
    return found


def _share(share: tuple[float, float, float]) -> str:
    value, low, high = (100 * each for each in share)
    return f"{value:5.1f}% ({low:.1f} to {high:.1f})".ljust(23)


def _methods(params: Params) -> dict[str, Method]:
    """The methods at the default margin, and perpetune also without a margin."""
    watch = params.watch
    return {
        OURS: ours(watch),
        NO_MARGIN: ours(watch.model_copy(update={"margin": 0.0})),
        EVIDENTLYS: evidently,
        FIXED: fixed(watch.margin),
        ADWINS: adwin,
    }


def _check_evidently() -> None:
    """Check the fast copy of Evidently's default test against Evidently on a few windows."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    rng = np.random.default_rng(3)
    references, scores = answers(ACCURACY)(rng, (1, ROWS)), answers(0.75)(rng, (1, 200))
    definition = DataDefinition(numerical_columns=["score"])
    for window, ours_p in zip(scores.reshape(-1, 50), evidently_p(scores, references)[0], strict=True):
        now, then = (
            Dataset.from_pandas(pd.DataFrame({"score": some}), data_definition=definition)
            for some in (window, references[0])
        )
        result = Report([ValueDrift(column="score")]).run(now, then).dict()["metrics"][0]
        if "method=Z-test" not in result["metric_name"] or abs(float(result["value"]) - ours_p) > 1e-9:
            raise AssertionError(f"Evidently gives {result['metric_name']} {result['value']} instead of {ours_p}")
    print("Evidently's z test gives the same p-values", flush=True)


def stable_histories(params: Params, histories: int, adwin_histories: int, labels: int) -> list[RunLength]:
    """False alarms at the worst mean, and at the champion's mean with a reference of `ROWS` rows."""
    bound = ACCURACY - params.watch.margin
    found = [_told_length(run_length_at_bound(params.watch, bound, histories, labels, 1))]
    stable, stream = answers(ACCURACY), f"simulated, {ACCURACY:.0%} right as the reference"
    return [*found, *_stable(_methods(params), stable, stream, histories, adwin_histories, labels)]


def _stable(
    methods: dict[str, Method], stable: Source, stream: str, histories: int, adwin_histories: int, labels: int
) -> list[RunLength]:
    return [
        _told_length(
            run_length(name, method, stable, ROWS, adwin_histories if name == ADWINS else histories, labels, 2, stream)
        )
        for name, method in methods.items()
    ]


def _told_length(found: RunLength) -> RunLength:
    mean = f"{found.mean:,.0f}" if found.mean else f"more than {found.low:,.0f}"
    high = f"{found.high:,.0f}" if found.high else "unknown"
    often = "" if found.per_thousand_windows is None else f", {found.per_thousand_windows:.2f} alarms in 1,000 windows"
    print(
        f"{found.method:20} stable, {found.stream}: {found.alarmed} of {found.histories} histories of {found.labels:,} "
        f"labels alarmed, labels to a false alarm {mean} ({found.low:,.0f} to {high}){often}",
        flush=True,
    )
    return found


def drops(params: Params, histories: int, adwin_histories: int) -> list[Delay]:
    methods = _methods(params)
    found = []
    for points in (3, 5, 10, 20):
        sources = answers(ACCURACY), answers(ACCURACY - points / 100)
        found += _delays(methods, f"{points} points", sources, histories, adwin_histories)
    return found


def _delays(
    methods: dict[str, Method], drop: str, sources: tuple[Source, Source], histories: int, adwin_histories: int
) -> list[Delay]:
    found = []
    for name, method in methods.items():
        count = adwin_histories if name == ADWINS else histories
        one = delay(name, method, drop, sources, ROWS, count, AFTER, 4)
        median, low, high = one.median
        print(
            f"{name:20} drop of {drop:28} median {median:6,.0f} labels ({low:,.0f} to {high:,.0f}), mean "
            f"{one.mean[0]:6,.0f}, found within {AFTER:,}: {_share(one.found)}",
            flush=True,
        )
        found.append(one)
    return found


def real_alarms(
    real: Sequence[Answered], params: Params, histories: int, adwin_histories: int, shorter: int
) -> tuple[list[RunLength], list[Delay]]:
    """The model fine-tuned on product reviews, on a stream of product reviews and then films."""
    found = {(each.system, each.rows): each.right for each in real}
    products, films = found["longer", "products"], found["longer", "films"]
    points = 100 * (np.mean(products) - np.mean(films))
    methods = _methods(params)
    stable, changed = resampled(products), resampled(films)
    stream = f"real, {np.mean(products):.1%} right on product reviews"
    return (
        _stable(methods, stable, stream, histories, adwin_histories, WINDOWS * WINDOW // shorter),
        _delays(methods, f"{points:.1f} points (real: films)", (stable, changed), histories, adwin_histories),
    )


def claims_of(
    verdicts: Sequence[Verdicts], lengths: Sequence[RunLength], params: Params, *, quick: bool = False
) -> list[Claim]:
    """The claims. In a quick run a claim fails only if its interval excludes the goal."""
    claims = []
    for each in verdicts:
        value, low, high = each.shares["promote"]
        name = f"{each.claim}: {each.scenario}, {each.rows} rows"
        if each.claim == "false promotions":
            holds = (low if quick else value) <= FALSE_PROMOTIONS
            claims.append(Claim(name, value, (low, high), FALSE_PROMOTIONS, holds))
        if each.claim == "promoted":
            claims.append(Claim(name, value, (low, high), POWER, (high if quick else value) >= POWER))
    goal = params.watch.run_length
    for length in lengths:
        if length.method == OURS:
            value = length.mean or length.low  # the lower bound if there was no alarm
            interval = (length.low, length.high or float(length.seen))
            holds = (interval[1] if quick else value) >= goal
            claims.append(Claim(f"labels to a false alarm: {length.stream}", value, interval, goal, holds))
    return claims


def draw(verdicts: Sequence[Verdicts], lengths: Sequence[RunLength], delays: Sequence[Delay], params: Params) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import house_style, write_png

    with house_style():
        figure = Figure(figsize=(10, 11), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1), squeeze=False)[:, 0]
        _draw_verdicts(top.subplots(), verdicts)
        left, right = bottom.subplots(1, 2)
        _draw_stable(left, lengths, params.watch.run_length)
        _draw_delays(right, delays)
        write_png(figure, Path(__file__).parent / "results" / "decisions.png")


def _draw_verdicts(axes: Axes, verdicts: Sequence[Verdicts]) -> None:
    """A stacked bar of the outcomes for each scenario."""
    from perpetune.evaluation.report.style import colour

    names = [f"{each.scenario}, {each.rows} rows" for each in verdicts]
    positions = np.arange(len(verdicts))
    starts = np.zeros(len(verdicts))
    for outcome, shade in zip(OUTCOMES, ("challenger", "linear", "majority"), strict=True):
        values = np.array([100 * each.shares[outcome][0] for each in verdicts])
        bars = axes.barh(positions, values, 0.72, left=starts, label=outcome, color=colour(shade))
        texts = [f"{value:.1f}" if value >= 4 else "" for value in values]
        axes.bar_label(bars, texts, label_type="center", color=colour("paper"), fontsize=8)
        starts += values
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"% of {verdicts[0].simulated:,} simulated promotions")
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))


def _draw_stable(axes: Axes, lengths: Sequence[RunLength], goal: float) -> None:
    """Labels to a false alarm, with intervals; an arrow if there was none."""
    from perpetune.evaluation.report.style import colour

    for position, length in enumerate(lengths):
        value, shade = length.mean or length.low, colour(SHADES[length.method])
        if length.high:
            axes.plot([length.low, length.high], [position, position], color=shade, linewidth=2)
            axes.plot(value, position, "o", color=shade)
        else:
            axes.plot(value, position, ">", color=shade, markersize=8)
        more = "" if length.mean else "more than "
        axes.annotate(
            f"{more}{_plain(value)}", (value, position), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    axes.axvline(goal, color=colour("muted"), linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_yticks(
        range(len(lengths)), [f"{length.method}\n{_stream(length.stream)}" for length in lengths], fontsize=8
    )
    axes.set_ylim(len(lengths) - 0.5, -0.7)
    axes.set_title("Stable streams: labels to a false alarm\n(dashed: the guarantee)", loc="left", fontsize=10)
    _plain_logarithm(axes)


def _plain_logarithm(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:.3g} million"


def _stream(stream: str) -> str:
    """The short name of a stream: the source of its answers."""
    return stream.split(",")[0]


def _draw_delays(axes: Axes, delays: Sequence[Delay]) -> None:
    """Median labels to an alarm after each drop; a hollow marker if fewer than half were found."""
    from perpetune.evaluation.report.style import colour

    kinds = list(dict.fromkeys(each.drop for each in delays))
    methods = list(dict.fromkeys(each.method for each in delays))
    for number, method in enumerate(methods):
        shade = colour(SHADES[method])
        some = [each for each in delays if each.method == method]
        positions = [kinds.index(each.drop) + 0.15 * (number - (len(methods) - 1) / 2) for each in some]
        for position, each in zip(positions, some, strict=True):
            found = each.found[0] >= 0.5
            axes.plot(each.median[1:], [position, position], color=shade, linewidth=2)
            axes.plot(each.median[0], position, "o", color=shade, markerfacecolor=shade if found else "none")
        axes.plot([], [], "o", color=shade, label=method)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_title(
        f"After a drop: median labels to an alarm\n(hollow: most found none in {AFTER:,})", loc="left", fontsize=10
    )
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.06))
    _plain_logarithm(axes)


if __name__ == "__main__":
    sys.exit(main())

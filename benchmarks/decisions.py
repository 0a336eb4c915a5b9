"""Error rates, power and wear of all decisions, on labels as users give them.

    make setup && python benchmarks/few_labels.py && python benchmarks/decay.py && python benchmarks/decisions.py

Measured here: the gate on its holdouts (answers of a champion and a challenger are simulated, and the product's tests,
slices and gate decide; "A/A" compares a model with itself; then real answers of SmolLM2 to product reviews, with rows drawn
with replacement), graded scores of which few lose much, and holdouts that decide for a year (shared/holdout_reuse.py). The claims
of few_labels.py (few, biased, dependent and wrong labels) and decay.py (false alarms and delays on such labels) are
collected from their last results.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from shared import holdout_reuse
from shared.holdout_reuse import WEEKS, Creep, Year
from shared.promotions import OUTCOMES, Scenario, Verdicts, drawn, ratio_with_interval, simulate
from shared.promotions import resampled as resampled_rows
from shared.real_answers import Answered, real_answers
from shared.record import RESULTS, Claim, write

from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.params import Params, load_params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACY = 0.85
DISCORDANCE = 0.10  # of two answers of the same model: one row in ten differs
ROWS = 500  # in each holdout
FALSE_PROMOTIONS, POWER = 0.05, 0.9
COLLECTED = ("few_labels", "decay")  # benchmarks whose claims are among these


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    params = load_params(Path("params.yaml"))
    if asked.collect:
        return collect_again(params)
    verdicts = promotions(params, asked.simulated)
    real = real_answers(asked.assets, asked.held_out) if asked.held_out else []
    if real:
        verdicts += real_promotions(real, params, asked.simulated)
    skewed = skewed_scores(params, asked.simulated)
    crept = holdout_reuse.creeps(params, asked.simulated, _told_use)
    years = holdout_reuse.years(params, asked.simulated, _told_use)
    claims = [
        *claims_of(verdicts, quick=asked.quick),
        _at_most("false promotions: graded scores, one answer in 20 loses much, 50 rows", skewed, quick=asked.quick),
        *reuse_claims(crept, years, params, quick=asked.quick),
        *(claim for name in (() if asked.quick else COLLECTED) for claim in collected(name)),
    ]
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g} "
            f"({claim.interval[0]:.4g} to {claim.interval[1]:.4g}), goal {claim.goal:g}"
        )
    details = {
        "promotions": [asdict(each) for each in verdicts],
        "creep": [asdict(each) for each in crept],
        "years": [asdict(each) for each in years],
        "collected": {name: _commit_of(name) for name in COLLECTED},
        "promote": params.promote.model_dump(),
    }
    if not asked.quick:
        print(write("decisions", claims, details, time.monotonic() - began))
        draw(verdicts, claims, crept, params)
    return 0 if all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--simulated", type=int, default=1000, help="promotions of each kind")
    parser.add_argument("--held-out", type=int, default=300, help="real rows of each kind; 0 skips the model")
    parser.add_argument("--collect", action="store_true", help="only read the other benchmarks' results again")
    parser.add_argument("--quick", action="store_true", help="few and short histories, no model, no output files")
    asked = parser.parse_args()
    if asked.quick:
        asked.simulated, asked.held_out = 50, 0
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


def skewed_scores(params: Params, simulated: int) -> tuple[float, float, float]:
    """How often a gain is shown, at `promote.alpha`, if one answer in 20 loses much and the others gain a little: none."""
    rng, shown = np.random.default_rng(20), 0
    for _ in range(simulated):
        change = np.where(rng.random(50) < 0.05, -0.95, 0.05)
        scores = Slice(tuple(np.full(50, 0.95).tolist()), tuple((0.95 + change).tolist()))
        found = paired_evidence(scores, params.evaluate, params.promote)
        shown += found.difference > 0 and found.p_value < params.promote.alpha
    return ratio_with_interval(shown, simulated)


def _at_most(name: str, found: tuple[float, float, float], *, quick: bool) -> Claim:
    value, low, high = found
    return Claim(name, value, (low, high), FALSE_PROMOTIONS, (low if quick else value) <= FALSE_PROMOTIONS)


def reuse_claims(crept: Sequence[Creep], years: Sequence[Year], params: Params, *, quick: bool) -> Iterator[Claim]:
    """Small losses in a row stay within the margin, and a year of equal challengers within its promotions."""
    margin, alpha = params.promote.margin, params.promote.alpha
    for each in crept:
        grows = f", {each.fresh:.0%} of them new each time" if each.fresh else ""
        name = f"accuracy lost by {each.refreshes} refreshes that lose {100 * each.step:g} points each, {each.rows} frozen rows{grows}"
        yield Claim(name, each.lost, (0.0, each.most_lost), margin, quick or each.lost <= margin)
    for one in years:
        same_rows = not one.recent
        if not one.spread:
            goal = holdout_reuse.harmonic(WEEKS, alpha) if same_rows else alpha * WEEKS
            interval = (0.0, one.most_promotions)
            holds = quick or one.promotions <= goal
            yield Claim(f"promotions in a year: {one.name}", one.promotions, interval, goal, holds)
        name = f"accuracy lost in a year: {one.name}, {one.frozen} and {one.recent} rows"
        interval = (-one.change, -one.least_change)
        yield Claim(name, 0.0 - one.change, interval, margin, quick or -one.change <= margin)


def collected(name: str) -> list[Claim]:
    """The claims of another benchmark's last results."""
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["claims"]
    return [
        Claim(**{**each, "claim": f"{name}: {each['claim']}", "interval": tuple(each["interval"])}) for each in found
    ]


def collect_again(params: Params) -> int:
    """This benchmark's last results with the other benchmarks' claims as they are now."""
    path = RESULTS / "decisions.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    others = tuple(f"{name}: " for name in COLLECTED)
    own = [Claim(**each) for each in known["claims"] if not each["claim"].startswith(others)]
    claims = [*own, *(claim for name in COLLECTED for claim in collected(name))]
    known["claims"] = [asdict(claim) for claim in claims]
    known["details"]["collected"] = {name: _commit_of(name) for name in COLLECTED}
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    details = known["details"]
    draw(
        [Verdicts(**each) for each in details["promotions"]],
        claims,
        [Creep(**each) for each in details["creep"]],
        params,
    )
    return 0 if all(claim.holds for claim in claims) else 1


def _commit_of(name: str) -> str:
    return str(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["commit"])


def _told_use(found: Creep | Year) -> None:
    print(found, flush=True)


def _told(found: Verdicts) -> Verdicts:
    shares = "  ".join(f"{outcome} {_share(found.shares[outcome])}" for outcome in OUTCOMES)
    print(f"{found.scenario:62} {found.rows:4} rows  discordance {found.discordance:.2f}  {shares}", flush=True)
    return found


def _share(share: tuple[float, float, float]) -> str:
    value, low, high = (100 * each for each in share)
    return f"{value:5.1f}% ({low:.1f} to {high:.1f})".ljust(23)


def claims_of(verdicts: Sequence[Verdicts], *, quick: bool = False) -> list[Claim]:
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
    return claims


def draw(verdicts: Sequence[Verdicts], claims: Sequence[Claim], crept: Sequence[Creep], params: Params) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import house_style, write_png

    with house_style():
        figure = Figure(figsize=(13, 12), layout="constrained")
        halves = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=(5, 6)), dtype=object))
        upper, lower = halves[0], halves[1]
        _draw_verdicts(upper.subplots(), verdicts)
        left, right = lower.subplots(1, 2, width_ratios=(3, 2))
        _draw_false(left, claims)
        _draw_creep(right, crept, params.promote.margin)
        write_png(figure, RESULTS / "decisions.png")


def _draw_false(axes: Axes, claims: Sequence[Claim]) -> None:
    """Promotions of challengers that are no better, with their intervals and the goal."""
    from perpetune.evaluation.report.style import colour

    false = [claim for claim in claims if "false promotions" in claim.claim]
    positions = np.arange(len(false))
    values = np.array([100 * claim.value for claim in false])
    lows, highs = (np.array([100 * claim.interval[end] for claim in false]) for end in (0, 1))
    axes.errorbar(values, positions, xerr=[values - lows, highs - values], fmt="o", color=colour("challenger"))
    axes.axvline(100 * FALSE_PROMOTIONS, color=colour("majority"), linestyle="--")
    names = [claim.claim.removeprefix("few_labels: ").removeprefix("false promotions: ") for claim in false]
    axes.set_yticks(positions, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 7)
    axes.set_xlabel("% of challengers promoted that are no better (goal: 5)")


def _draw_creep(axes: Axes, crept: Sequence[Creep], margin: float) -> None:
    """Points lost by refreshes that each lose little."""
    from perpetune.evaluation.report.style import colour

    shades = ("challenger", "linear", "majority")
    kinds = list(dict.fromkeys((each.refreshes, each.step) for each in crept))
    for (refreshes, step), shade in zip(kinds, shades, strict=True):
        some = [each for each in crept if (each.refreshes, each.step) == (refreshes, step) and not each.fresh]
        label = f"{refreshes} refreshes, {100 * step:g} points each"
        axes.plot(
            [each.rows for each in some], [100 * each.lost for each in some], "o-", color=colour(shade), label=label
        )
    axes.axhline(100 * margin, color=colour("majority"), linestyle="--")
    axes.set_ylim(0, 100 * margin + 1)
    axes.set_xlabel("frozen rows, the same each time")
    axes.set_ylabel("points of accuracy lost in all (the margin: 3)")
    axes.legend(frameon=False, fontsize=9, loc="lower right")


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


if __name__ == "__main__":
    sys.exit(main())

"""Error rates of the promotion gate: promotions of challengers that are no better.

    make setup && python benchmarks/decisions.py

Answers of a champion and a challenger are simulated, and the product's tests, slices and gate decide. "A/A" compares a
model with itself. Then the same on real answers of SmolLM2 to product reviews, with rows drawn with replacement.
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
from promotions import OUTCOMES, Scenario, Verdicts, drawn, simulate
from promotions import resampled as resampled_rows
from real_answers import Answered, real_answers
from record import Claim, write

from perpetune.params import Params, load_params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACY = 0.85
DISCORDANCE = 0.10  # of two answers of the same model: one row in ten differs
ROWS = 500  # in each holdout
FALSE_PROMOTIONS, POWER = 0.05, 0.9


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    params = load_params(Path("params.yaml"))
    verdicts = promotions(params, asked.simulated)
    real = real_answers(asked.assets, asked.held_out) if asked.held_out else []
    if real:
        verdicts += real_promotions(real, params, asked.simulated)
    claims = claims_of(verdicts, quick=asked.quick)
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g} "
            f"({claim.interval[0]:.4g} to {claim.interval[1]:.4g}), goal {claim.goal:g}"
        )
    details = {
        "promotions": [asdict(each) for each in verdicts],
        "promote": params.promote.model_dump(),
    }
    if not asked.quick:
        print(write("decisions", claims, details, time.monotonic() - began))
        draw(verdicts)
    return 0 if all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--simulated", type=int, default=1000, help="promotions of each kind")
    parser.add_argument("--held-out", type=int, default=300, help="real rows of each kind; 0 skips the model")
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


def draw(verdicts: Sequence[Verdicts]) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import house_style, write_png

    with house_style():
        figure = Figure(figsize=(10, 6), layout="constrained")
        _draw_verdicts(figure.subplots(), verdicts)
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


if __name__ == "__main__":
    sys.exit(main())

"""False alarms of the decay monitor and its delay after a drop, on labels as users give them, beside other detectors.

    make setup && pip install river && python benchmarks/decay.py

Stable streams: the probability of a false alarm within 1,000 and 10,000 labels, for references of 50 to 500 rows, whose
randomness is included, and for streams of dependent labels. Drops: labels until half of the histories have the alarm,
beside other detectors whose thresholds give as many false alarms within 10,000 labels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shared import alarms, label_streams
from shared.alarms import ADWIN, CHUNKS, CUSUM, DDM, DELTAS, EVERY, EVIDENTLY, OURS, PAGE_HINKLEY, Method, Numbers
from shared.label_streams import ACCURACY, PER_DAY, Source, Stream
from shared.record import Claim, write

from perpetune.monitoring.detector_state import LOTS, early_run_length
from perpetune.params import WatchParams, load_params
from perpetune.policy.retraining import MIX_RATIO
from perpetune.statistics.estimate import wilson
from perpetune.statistics.sequential.change_point import (
    Detector,
    WeightedScore,
    evidence_without,
    most_likely_change,
    new_detector,
    update_detector,
)

Bools = npt.NDArray[np.bool_]
LABELS = 10_000  # of a stable history
SOON = 1000
MEANS, ROWS = (0.5, 0.7, 0.85, 0.95, 0.99), (50, 100, 200, 500)
SELDOM = 100  # labels between two checks of streams whose falls are taken apart
EARLIER = 1000  # labels of the time that the reference comes from
LATE_LOTS = 3  # of the last days, of which right answers have no label yet
LONG = 150_000  # labels to a false alarm: eight years at 50 labels a day
AFTER = 5000  # labels after a drop
REFERENCES = ((100, 0), (100, 500), (500, 0), (500, 500), (500, 2000))  # (rows, own labels before the drop)
DROPS = (0.05, 0.08, 0.10, 0.20)
STREAMS: dict[str, Source] = {
    "independent labels": label_streams.steady,
    "bursts of five alike": label_streams.bursts,
    "one user gives 30%": label_streams.heavy_user,
    "day and night, 50 labels a day": label_streams.day_and_night,
    "day and night, 1,000 labels a day": label_streams.busy_day_and_night,
    "a mix shift of 10 points": label_streams.mix_shift,
    "10% of labels wrong": label_streams.noisy,
}


@dataclass(frozen=True)
class Stable:
    """Ratios of stable histories with a false alarm within 1,000 and 10,000 labels, and labels to a false alarm.

    `independent` is the ratio of labels that count. `named` is the ratio of histories with an alarm that is named a mix
    shift, which starts nothing.
    """

    stream: str
    rows: int
    histories: int
    soon: tuple[float, float, float]
    within: tuple[float, float, float]
    run_length: float
    independent: float = 1.0
    named: float = 0.0


@dataclass(frozen=True)
class Delay:
    """Labels (and days at 50 a day, with urgent labels a day after they are asked for) until half of the histories have the alarm."""

    method: str
    drop: float
    rows: int
    own: int
    run_length: float
    histories: int
    median: float | None
    found: float
    days: float | None = None


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    watch = load_params(Path("params.yaml")).watch
    if not asked.quick:
        _check_evidently()
    stable = [
        *stable_means(watch, asked.histories, asked.labels),
        *stable_streams(watch, asked.histories, asked.labels),
    ]
    cannot = {times: complaints(watch, times, asked.histories) for times in (1, 2, 3)}
    late = late_confirmations(watch, asked.histories)
    delays = [*our_delays(watch, asked.histories), *peers(watch, asked.histories, asked.adwin, asked.labels)]
    claims = claims_of(stable, delays, cannot, late, watch, quick=asked.quick)
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g} {claim.interval}, goal {claim.goal:g}"
        )
    if not asked.quick:
        details = {
            "stable": [asdict(each) for each in stable],
            "delays": [asdict(each) for each in delays],
            "complaints that decide nothing": cannot,
            "false alarms if wrong answers are labelled at once": late,
            "watch": watch.model_dump(),
        }
        print(write("decay", claims, details, time.monotonic() - began))
        draw(stable, delays)
    return 0 if all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--adwin", type=int, default=200, help="histories for ADWIN, which is slow; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="few and short histories, no ADWIN, no output files")
    asked = parser.parse_args()
    asked.labels = LABELS
    if asked.quick:
        asked.histories, asked.adwin, asked.labels = 40, 0, 2000
    return asked


def stable_means(watch: WatchParams, histories: int, labels: int) -> Iterator[Stable]:
    """Independent labels of one mean, with the reference from the same source."""
    for mean in MEANS:
        for rows in ROWS:
            rng = np.random.default_rng(rows)
            scores, references = _drawn(rng, mean, (histories, labels)), _drawn(rng, mean, (histories, rows))
            alarm = alarms.ours(watch.margin)(scores, references) >= watch.run_length
            yield _told(_stable(f"{mean:.0%} right", rows, alarm, 1.0, 0.0))


def stable_streams(watch: WatchParams, histories: int, labels: int) -> Iterator[Stable]:
    """Dependent labels, of which one a day counts of each user, and of equal inputs; a mix shift is named."""
    rows = 200
    for name, source in STREAMS.items():
        rng = np.random.default_rng(len(name))
        kept, ratio = label_streams.independent(source(rng, (histories, labels)))
        reference = _spread(label_streams.independent(source(rng, (histories, EARLIER)))[0], rows)
        has_parts = bool(kept.parts.any())
        every = SELDOM if has_parts else EVERY
        paths = alarms.ours(watch.margin)(kept.scores, reference.scores)[:, every // EVERY - 1 :: every // EVERY]
        alarm = paths >= watch.run_length
        named = _named(kept, reference, alarm, watch) if has_parts else np.zeros(alarm.shape, dtype=bool)
        yield _told(_stable(name, rows, alarm & ~named, ratio, float(named.any(axis=1).mean()), every))


def _spread(stream: Stream, rows: int) -> Stream:
    """Rows of the whole time, as a holdout has them."""
    some = np.linspace(0, stream.scores.shape[1] - 1, rows).astype(int)
    return Stream(stream.scores[:, some], stream.clusters[:, some], stream.parts[:, some])


def _named(kept: Stream, reference: Stream, alarm: Bools, watch: WatchParams) -> Bools:
    """Which alarms, (histories x checks), are named a mix shift."""
    found = np.zeros(alarm.shape, dtype=bool)
    for history in np.flatnonzero(alarm.any(axis=1)).tolist():
        detector, done = new_detector(_weighted(reference.scores[history])), 0
        for check in np.flatnonzero(alarm[history]):
            end = (int(check) + 1) * SELDOM
            detector, done = update_detector(detector, _weighted(kept.scores[history, done:end])), end
            found[history, check] = _is_mix_shift(detector, kept, reference, history, end, watch)
            if not found[history, check]:
                break  # a refresh starts
    return found


def _is_mix_shift(
    detector: Detector, kept: Stream, reference: Stream, history: int, end: int, watch: WatchParams
) -> bool:
    change = most_likely_change(detector, watch.margin)
    begins = end - change.since.rows
    names = ("scores", "clusters", "parts")
    before = Stream(
        *(
            np.concatenate([getattr(each, name)[history, :upto] for each, upto in ((reference, None), (kept, begins))])
            for name in names
        )
    )
    since = Stream(*(getattr(kept, name)[history, begins:end] for name in names))
    mix = label_streams.mix_of_fall(before, since)
    if mix is None or mix.mix < MIX_RATIO * (mix.within + mix.mix):
        return False
    return evidence_without(change, mix.mix, mix.rows, watch.margin) < watch.run_length


def _weighted(scores: Numbers) -> list[WeightedScore]:
    return [WeightedScore(score) for score in scores.tolist()]


def _stable(stream: str, rows: int, alarm: Bools, ratio: float, named: float, every: int = EVERY) -> Stable:
    histories, checks = alarm.shape
    first = np.where(alarm.any(axis=1), alarm.argmax(axis=1) + 1, checks) * every
    alarmed = int(alarm.any(axis=1).sum())
    soon = int(alarm[:, : SOON // every].any(axis=1).sum())
    return Stable(
        stream,
        rows,
        histories,
        _ratio(soon, histories),
        _ratio(alarmed, histories),
        float(first.sum()) / max(alarmed, 1),
        ratio,
        named,
    )


def _told(found: Stable) -> Stable:
    print(
        f"{found.stream:36} reference {found.rows:4}: false alarm within 1,000 {found.soon[0]:.3f}, within all "
        f"{found.within[0]:.3f}; {found.run_length:,.0f} labels to one; {found.independent:.0%} of labels count; named "
        f"{found.named:.3f}",
        flush=True,
    )
    return found


def complaints(watch: WatchParams, times: float, simulated: int) -> float:
    """The ratio of windows in which labels that came unasked decide nothing, and the product says so."""
    rng = np.random.default_rng(int(times))
    decide = [label_streams.complaints_decide(rng, times, 1000, watch.margin) for _ in range(simulated)]
    print(
        f"wrong answers labelled {times} times as often: {1 - np.mean(decide):.1%} of windows decide nothing",
        flush=True,
    )
    return float(1 - np.mean(decide))


def late_confirmations(watch: WatchParams, simulated: int) -> tuple[float, float, float]:
    """Stable histories with a false alarm within `SOON` labels, if wrong answers are labelled days before right ones."""
    rng, alarmed = np.random.default_rng(4), 0
    for _ in range(simulated):
        detector = new_detector(_weighted(_drawn(rng, ACCURACY, (1, 200))[0]))
        for scores in label_streams.late_confirmations(rng, SOON // PER_DAY + LATE_LOTS):
            detector = update_detector(detector, _weighted(scores))
            if most_likely_change(detector, watch.margin).evidence >= watch.run_length:
                alarmed += 1
                break
    found = _ratio(alarmed, simulated)
    print(f"wrong answers labelled in an hour, right ones in three days: false alarm {found[0]:.3f}", flush=True)
    return found


def our_delays(watch: WatchParams, histories: int) -> Iterator[Delay]:
    """Delays after drops at two run lengths, for references of several sizes and own labels before."""
    for drop in DROPS:
        for rows, own in REFERENCES:
            evidence = _after_drop(alarms.ours(watch.margin), drop, rows, own, histories)
            for run_length in (watch.run_length, LONG):
                first = _first(evidence >= run_length)
                found = _delay(OURS, drop, rows, own, run_length, first)
                days = float(np.median(_days(evidence, watch.model_copy(update={"run_length": run_length}))))
                yield _told_delay(Delay(**{**asdict(found), "days": days if np.isfinite(days) else None}))


def _days(evidence: Numbers, watch: WatchParams) -> Numbers:
    """Days to the alarm at 50 labels a day, and a lot of urgent labels a day after each time that the monitor asks for one.

    A lot counts once nearly all of it has come, so it comes at once; what it shows asks for the next one, as in a check.
    """
    histories = len(evidence)
    early, step = early_run_length(watch), EVERY / PER_DAY
    day, due, lots, of_lot = np.zeros(histories), np.full(histories, np.inf), np.zeros(histories), np.zeros(histories)
    alarm = np.full(histories, np.inf)
    for found in evidence.T:
        comes = due <= day + step
        day = np.where(comes, np.maximum(day, due), np.where(of_lot > 0, day, day + step))
        of_lot, due = np.where(comes, watch.urgent_labels, of_lot), np.where(comes, np.inf, due)
        of_lot = np.maximum(of_lot - EVERY, 0)
        alarm = np.where(found >= watch.run_length, np.minimum(alarm, day), alarm)
        lots = np.where(found >= early, lots, 0)
        asks = (found >= early) & (of_lot == 0) & np.isinf(due) & (lots < LOTS)
        due, lots = np.where(asks, day + 1, due), lots + asks
    return alarm


def peers(watch: WatchParams, histories: int, adwin: int, labels: int) -> Iterator[Delay]:
    """All detectors at the rate of false alarms that perpetune has within 10,000 labels."""
    rows, own = 500, 500
    for drop in (0.05, 0.10):
        others: dict[str, Method] = {
            CUSUM: alarms.cusum(ACCURACY, ACCURACY - drop),
            PAGE_HINKLEY: alarms.page_hinkley,
            DDM: alarms.ddm,
            CHUNKS: alarms.chunks,
            EVIDENTLY: alarms.evidently,
        }
        rng = np.random.default_rng(5)
        scores, references = _drawn(rng, ACCURACY, (histories, labels)), _drawn(rng, ACCURACY, (histories, rows))
        rate = float((alarms.ours(watch.margin)(scores, references) >= watch.run_length).any(axis=1).mean())
        for name, method in others.items():
            highest = method(scores, references).max(axis=1)
            threshold = float(np.quantile(highest, 1 - rate))
            alarm = _after_drop(method, drop, rows, own, histories) > threshold
            yield _told_delay(_delay(name, drop, rows, own, watch.run_length, _first(alarm)))
        if adwin:
            delta = _delta(scores[:adwin], references[:adwin], rate)
            alarm = _after_drop(partial(alarms.adwin, delta=delta), drop, rows, own, adwin) > 0
            yield _told_delay(_delay(ADWIN, drop, rows, own, watch.run_length, _first(alarm)))


def _delta(scores: Numbers, references: Numbers, rate: float) -> float:
    """The largest delta of ADWIN with at most this rate of false alarms."""
    for delta in DELTAS:
        if alarms.adwin(scores, references, delta).any(axis=1).mean() <= rate:
            return delta
    return DELTAS[-1]


def _after_drop(method: Method, drop: float, rows: int, own: int, histories: int) -> Numbers:
    """The statistic at the checks after the drop; the labels before it are part of the history."""
    rng = np.random.default_rng(7)
    before = _drawn(rng, ACCURACY, (histories, own))
    scores = np.concatenate([before, _drawn(rng, ACCURACY - drop, (histories, AFTER))], axis=1)
    return method(scores, _drawn(rng, ACCURACY, (histories, rows)))[:, own // EVERY :]


def _first(alarm: Bools) -> Numbers:
    return np.where(alarm.any(axis=1), (alarm.argmax(axis=1) + 1.0) * EVERY, np.inf)


def _delay(method: str, drop: float, rows: int, own: int, run_length: float, first: Numbers) -> Delay:
    median = float(np.median(first))
    return Delay(
        method,
        drop,
        rows,
        own,
        run_length,
        len(first),
        median if np.isfinite(median) else None,
        float(np.isfinite(first).mean()),
    )


def _told_delay(found: Delay) -> Delay:
    median = "not in half" if found.median is None else f"{found.median:,.0f} labels"
    days = "" if found.days is None else f", {found.days:.1f} days"
    print(
        f"{found.method:28} drop {100 * found.drop:4.0f} points, reference {found.rows}, own {found.own:5}, run length "
        f"{found.run_length:,.0f}: {median}{days}, found {found.found:.1%}",
        flush=True,
    )
    return found


def claims_of(
    stable: Sequence[Stable],
    delays: Sequence[Delay],
    cannot: dict[int, float],
    late: tuple[float, float, float],
    watch: WatchParams,
    *,
    quick: bool,
) -> list[Claim]:
    """The claims. A false-alarm claim fails if its interval is above what the run length allows."""
    claims = []
    labels = SOON * 2 if quick else LABELS
    for each in stable:
        # Alarms at random times with that average: 1 - exp(-labels / run length).
        goal = float(1 - np.exp(-labels / watch.run_length))
        value, low, high = each.within
        name = f"a false alarm within {labels:,} labels: {each.stream}, {each.rows} reference rows"
        claims.append(Claim(name, value, (low, high), goal, low <= goal))
    value, *ends = late
    goal = float(1 - np.exp(-SOON / watch.run_length))
    name = f"a false alarm within {SOON:,} labels: wrong answers labelled in an hour, right ones in three days"
    claims.append(Claim(name, value, (ends[0], ends[1]), goal, ends[0] <= goal))
    wanted = {(0.10, 100, 500): 5.0, (0.10, 500, 500): 4.0, (0.08, 500, 500): 6.0, (0.10, 500, 0): 6.0}
    for delay in delays:
        goal_days = wanted.get((delay.drop, delay.rows, delay.own))
        if delay.method == OURS and delay.run_length == LONG and goal_days is not None:
            days = delay.days or np.inf
            name = f"days to {100 * delay.drop:.0f} points at 50 labels a day, {delay.rows} reference rows and {delay.own} own"
            claims.append(Claim(name, days, (days, days), goal_days, quick or days <= goal_days))
    for times in (2, 3):
        value = cannot[times]
        name = f"complaints {times} times as often decide nothing"
        claims.append(Claim(name, value, (value, value), 0.95, quick or value >= 0.95))
    return claims


def draw(stable: Sequence[Stable], delays: Sequence[Delay]) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png

    with house_style():
        figure = Figure(figsize=(11, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        named = [each for each in stable if each.stream in STREAMS]
        positions = np.arange(len(named))
        left.barh(positions, [100 * each.within[0] for each in named], color=colour("challenger"))
        left.set_yticks(positions, [each.stream for each in named])
        left.invert_yaxis()
        left.set_xlabel("% of stable histories with a false alarm in 10,000 labels")
        compared = [
            each
            for each in delays
            if each.drop == 0.10 and (each.rows, each.own) == (500, 500) and each.run_length != LONG
        ]
        positions = np.arange(len(compared))
        shades = [colour("challenger" if each.method == OURS else "linear") for each in compared]
        right.barh(positions, [each.median or AFTER for each in compared], color=shades)
        right.set_yticks(positions, [each.method for each in compared])
        right.invert_yaxis()
        right.set_xlabel("labels until half have found a drop of 10 points,\nat equal false alarms")
        write_png(figure, Path(__file__).parent / "results" / "decay.png")


def _check_evidently() -> None:
    """Check the fast copy of Evidently's default test against Evidently on a few windows."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    rng = np.random.default_rng(3)
    references, scores = _drawn(rng, ACCURACY, (1, 500)), _drawn(rng, 0.75, (1, 200))
    definition = DataDefinition(numerical_columns=["score"])
    for window, ours_p in zip(scores.reshape(-1, 50), alarms.evidently_p(scores, references)[0], strict=True):
        now, then = (
            Dataset.from_pandas(pd.DataFrame({"score": some}), data_definition=definition)
            for some in (window, references[0])
        )
        result = Report([ValueDrift(column="score")]).run(now, then).dict()["metrics"][0]
        if "method=Z-test" not in result["metric_name"] or abs(float(result["value"]) - ours_p) > 1e-9:
            raise AssertionError(f"Evidently gives {result['metric_name']} {result['value']} instead of {ours_p}")
    print("Evidently's z test gives the same p-values", flush=True)


def _drawn(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Numbers:
    return (rng.random(shape) < mean).astype(np.float64)


def _ratio(count: int, times: int) -> tuple[float, float, float]:
    found = wilson(count, times, 0.95)
    return found.value, found.low, found.high


if __name__ == "__main__":
    sys.exit(main())

"""A replay as a table, with the time and reason of each refresh."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from perpetune.replay.outcome import Detection, Outcome
from perpetune.replay.replay import Replay
from perpetune.statistics.estimate import Estimate

MAX_REASONS = 5  # refreshes of a policy that are listed with their reasons


def show_replay(found: Replay, console: Console, *, verbose: bool = False) -> None:
    def say(line: str, style: str | None = None) -> None:
        console.print(line, markup=False, soft_wrap=True, style=style)

    say(
        f"{found.history}: {found.requests:,} labelled requests in {found.days:.0f} days; "
        f"the first model was trained on {found.initial:,} examples"
    )
    say(f"answered by {found.model}")
    for row in found.rejected[:3]:
        say(f"quarantined: {row}", "yellow")
    if len(found.rejected) > 3:
        say(f"quarantined: {len(found.rejected) - 3} more rows, all in replay.json", "yellow")
    console.print(_table(found))
    for outcome in found.outcomes:
        for refresh in outcome.refreshes[:MAX_REASONS] if outcome.policy != "every week" else ():
            say(
                f"{refresh.time:%Y-%m-%d %H:%M} {outcome.policy}: {refresh.outcome}, {refresh.trigger}, "
                f"{refresh.train_rows:,} rows, {refresh.seconds / 60:.1f} min"
            )
            if verbose:
                say(f"    {refresh.trigger_reason}", "dim")
                say(f"    {refresh.reason}", "dim")
        if len(outcome.refreshes) > MAX_REASONS and outcome.policy != "every week":
            say(f"{outcome.policy}: {len(outcome.refreshes) - MAX_REASONS} more refreshes, all in replay.json")


def _table(found: Replay) -> Table:
    changed = any(outcome.detections for outcome in found.outcomes)
    table = Table()
    table.add_column("policy", no_wrap=True)
    table.add_column(f"{found.metric.replace('_', ' ')}, n {found.outcomes[0].score.n:,}", no_wrap=True)
    compared = any(outcome.perpetune_lead for outcome in found.outcomes)
    if compared:
        table.add_column("perpetune less it", no_wrap=True)
    for name in ("retrained", *(("before change", "after change") if changed else ()), "promoted", "training"):
        table.add_column(name)
    for outcome in found.outcomes:
        recorded = outcome.policy == "as recorded"
        table.add_row(
            outcome.policy,
            as_percent(outcome.score),
            *([_lead(outcome)] if compared else []),
            "?" if recorded else str(len(outcome.refreshes)),
            *(_detected(outcome) if changed else []),
            "?" if recorded else str(outcome.promotions),
            "?" if recorded else f"{outcome.minutes:.0f} min ${outcome.dollars:.2f}",
        )
    return table


def _lead(outcome: Outcome) -> str:
    lead = outcome.perpetune_lead
    return f"{100 * lead.difference:+.1f} ({100 * lead.low:+.1f} to {100 * lead.high:+.1f})" if lead else ""


def as_percent(score: Estimate) -> str:
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _detected(outcome: Outcome) -> list[str]:
    if not outcome.detections:
        return ["?", "?"]
    return [str(outcome.before), "\n".join(_delay(detection) for detection in outcome.detections)]


def _delay(detection: Detection) -> str:
    if detection.refresh is None:
        return "never"
    return f"{detection.labels} labels, {detection.days:.1f} days"

"""The status on one screen of a terminal: at most 40 lines of 100 columns, a verdict in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpetune.evaluation.economics.wording import requests_text
from perpetune.explain.status import LOG, MLFLOW, Status, VersionLine
from perpetune.policy.wording import one_line
from perpetune.prediction_log.labels.counts import counted
from perpetune.runtime.service_state import ServiceState

WIDTH = 100
NAME_WIDTH = 12
MOST_VERSIONS = 6
MOST_ALARMS = 6
MOST_CELL = 20  # of a column beside the verdict
Line = tuple[str, str, str | None]  # name, text and style


def show_status(status: Status, console: Console, *, verbose: bool = False, all_versions: bool = False) -> None:
    """Print the status; `verbose` cuts nothing and adds the reasons of decisions and all next steps."""
    for name, text, style in _lines(status):
        shown = text if verbose else one_line(text, WIDTH - NAME_WIDTH)
        console.print(f"{name:<{NAME_WIDTH - 1}} {shown}", style=style, markup=False, soft_wrap=True)
    versions = status.versions if verbose or all_versions else _most_important(status.versions)
    if versions:
        _print_table(_version_table(versions, verbose=verbose), console, whole=verbose)
    if status.has_older_versions or len(versions) < len(status.versions):
        console.print("older versions: `perpetune status --all`", markup=False)
    if status.services:
        _print_table(_service_table(status.services), console, whole=verbose)
    short = () if status.next_step is None else (status.next_step,)
    for step in status.next_steps if verbose else short:
        console.print(f"next: {step}", markup=False, soft_wrap=True)


def _print_table(table: Table, console: Console, *, whole: bool) -> None:
    """In 100 columns, also into a file, which has no width; `whole` takes those of the terminal."""
    if not whole:
        table.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    console.print(table, markup=False, crop=False)


def _lines(status: Status) -> Iterator[Line]:
    yield status.task, f"{status.time:%Y-%m-%d %H:%M UTC}" if status.time else "", "bold"
    for each in status.unknown:
        yield "not read", each.partition("\n")[0], "bold red"
    yield "champion", _champion(status), None
    if status.hosted:
        yield "", status.hosted, None
    yield "last check", _last_check(status), "bold red" if status.check_failed else None
    if not status.is_unknown(MLFLOW):
        yield "detector", status.detector_state or "no labels yet", None
    for number, each in enumerate(status.estimates):
        yield "" if number else "estimate", each, None
    if status.planned and status.time:
        yield "planned", ", ".join(_planned(name, when, status.time) for name, when in status.planned.items()), None
    yield from _alarms(status)
    yield "labels", _labels(status), None
    if status.unasked and "unasked" in status.labels:
        yield "", status.unasked, None
    yield "log", _log(status), None
    if status.costs is not None:
        yield "costs", status.costs.line(), None


def _champion(status: Status) -> str:
    """As "version 12, tuned, for 7 days; the gateway serves it"."""
    if status.champion is None:
        known = "not known" if status.is_unknown(MLFLOW) else "none"
        return known if status.serving is None else f"{known}; the gateway serves version {status.serving}"
    system = next((f", {line.system}" for line in status.versions if line.version == status.champion), "")
    age = ""
    if status.champion_since is not None and status.time is not None:
        age = f", since {status.champion_since:%Y-%m-%d %H:%M UTC} ({_span(status.time - status.champion_since)})"
    return f"version {status.champion}{system}{age}; {_serving(status)}"


def _serving(status: Status) -> str:
    if status.serving is None:
        return "no gateway serves it"
    return "the gateway serves it" if status.serving == status.champion else f"the gateway serves {status.serving}"


def _last_check(status: Status) -> str:
    return status.last_check or ("not known" if status.is_unknown(MLFLOW) else "none yet")


def _planned(name: str, when: datetime, now: datetime) -> str:
    return f"{name} {when:%a %Y-%m-%d %H:%M UTC} (in {_span(when - now)})"


def _alarms(status: Status) -> Iterator[Line]:
    alarms = status.alarms
    if not alarms:
        yield "alarms", "not known" if status.unknown else "none", None
    for number, alarm in enumerate(alarms[:MOST_ALARMS]):
        yield "" if number else "alarms", alarm, "bold red"
    if len(alarms) > MOST_ALARMS:
        yield "", f"and {len(alarms) - MOST_ALARMS} more, see `perpetune status --json`", "bold red"
    elif alarms and status.unknown:
        yield "", "there may be others, of what was not read", "bold red"


def _labels(status: Status) -> str:
    """As "48 wanted (12 urgent): `perpetune labels`; so far 45 by lot, 30 unasked"."""
    if status.is_unknown(LOG):
        return "not known"
    urgent = f" ({status.urgent_labels:,} urgent)" if status.urgent_labels else ""
    wanted = (
        f"{status.open_label_requests:,} wanted{urgent}: `perpetune labels`"
        if status.open_label_requests
        else "none wanted"
    )
    ignored = f", {status.ignored_labels:,} ignored that are not the task's" if status.ignored_labels else ""
    return f"{wanted}; so far {counted(dict(status.labels)) or 'none'}{ignored}"


def _log(status: Status) -> str:
    if status.is_unknown(LOG):
        return "not known"
    rate = (
        ""
        if status.requests_per_day is None
        else f", {requests_text(status.requests_per_day)} requests a day this month"
    )
    return f"{status.predictions:,} predictions, {status.labelled:,} labelled{rate}"


def _span(time: timedelta) -> str:
    """As "7 days", "5 h" or "12 min"."""
    minutes = max(0.0, time.total_seconds() / 60)
    if minutes >= 2 * 24 * 60:
        return f"{minutes // (24 * 60):.0f} days"
    return f"{minutes // 60:.0f} h" if minutes >= 120 else f"{minutes:.0f} min"


def _most_important(versions: Sequence[VersionLine]) -> Sequence[VersionLine]:
    """The newest versions and those with an alias."""
    return [each for rank, each in enumerate(versions) if each.aliases or rank < MOST_VERSIONS - 3][:MOST_VERSIONS]


def _version_table(versions: Sequence[VersionLine], *, verbose: bool) -> Table:
    table = Table(expand=True)
    for name in ("version", "aliases", "system", "release"):
        longest = max(len(name), *(len(_cells(line, verbose)[name]) for line in versions))
        table.add_column(name, no_wrap=not verbose, overflow="ellipsis", min_width=min(longest, MOST_CELL))
    table.add_column("verdict", no_wrap=not verbose, overflow="fold" if verbose else "ellipsis", ratio=1)
    for line in versions:
        table.add_row(*map(Text, _cells(line, verbose).values()))
    return table


def _cells(line: VersionLine, verbose: bool) -> dict[str, str]:
    verdict = f"{line.decision}: {line.reason}" if verbose and line.reason else line.verdict
    cells = (line.version, ", ".join(line.aliases), line.system, line.release, verdict)
    return dict(zip(("version", "aliases", "system", "release", "verdict"), cells, strict=True))


def _service_table(services: Sequence[ServiceState]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, min_width=NAME_WIDTH - 2)
    table.add_column(no_wrap=True, min_width=4)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for each in services:
        said = " ".join(filter(None, (each.address, f"({each.what})" if each.what else "")))
        if not each.up and each.do:
            said = f"{each.what}: {each.do}" + (f" ({each.address})" if each.address else "")
        table.add_row(each.name, Text("up", "green") if each.up else Text("down", "bold red"), Text(said))
    return table

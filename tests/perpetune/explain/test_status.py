from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

from rich.console import Console

from perpetune.explain.month_costs import MonthCosts, month_costs
from perpetune.explain.status import Status, VersionLine, without_temporary
from perpetune.explain.status_screen import show_status
from perpetune.params import load_params
from perpetune.runtime.addresses import LOCK_FILE
from perpetune.runtime.processes.file_locks import acquire
from perpetune.runtime.service_state import ServiceState
from perpetune.runtime.up import is_lasting
from perpetune.settings import Settings
from perpetune.workspace import Workspace

ROOT = Path(__file__).parents[3]
NEW = Status(
    task="shop",
    serving=None,
    versions=(),
    last_check=None,
    predictions=0,
    labelled=0,
    open_label_requests=0,
    addresses={"MLflow": "http://127.0.0.1:58835/#/experiments", "Prefect": "http://127.0.0.1:37167"},
)


def shown(status: Status) -> list[str]:
    text = StringIO()
    show_status(status, Console(file=text, width=120))
    return text.getvalue().splitlines()


def screen(status: Status, width: int = 100) -> str:
    text = StringIO()
    show_status(status, Console(file=text, width=width))
    return text.getvalue()


def version(number: int, *aliases: str) -> VersionLine:
    line = "promote the challenger: +6.1 points (2.3 to 9.9, n=219), " + "93.2% right, and many more words of it " * 4
    return VersionLine(str(number), aliases, "promote", "reason", "data", "released", "tuned", line)


NOW = datetime(2026, 11, 27, 10, 40, tzinfo=UTC)
FULL = replace(
    NEW,
    time=NOW,
    serving="17",
    champion="17",
    champion_since=NOW - timedelta(days=7, hours=3),
    versions=tuple(version(number, *(("champion",) if number == 17 else ())) for number in range(40, 10, -1)),
    has_older_versions=True,
    last_check="2026-11-27 10:00 UTC: keep: 91.2% (88.0 to 94.1, n=312), " + "evidence 12 of 20,000, " * 5,
    planned={"check": NOW + timedelta(minutes=20), "refresh": NOW + timedelta(days=3)},
    alarms=tuple(f"alarm {number}" for number in range(9)),
    labels={"lot": 45, "unasked": 30},
    unasked="30 labels came unasked and decide nothing: they score lower than labels by lot",
    predictions=1_000_000,
    labelled=75,
    open_label_requests=48,
    urgent_labels=12,
    requests_per_day=16_666.7,
    costs=MonthCosts("November", 0.1, 12.0, 612.0, 100.0),
    services=(
        ServiceState("gateway", True, "serves version 17", "http://127.0.0.1:8000"),
        ServiceState("engine", True, "in the gateway"),
        ServiceState("MLflow", True, "", "http://127.0.0.1:5000"),
        ServiceState("Prefect", False, "does not answer", "http://127.0.0.1:4200", "`perpetune up`"),
        ServiceState("worker", False, "not known without Prefect", do="`perpetune up`"),
    ),
    next_step="`perpetune labels`",
)


def test_without_versions_there_is_no_table() -> None:
    lines = shown(NEW)
    assert lines[1:3] == ["champion    none", "last check  none yet"]
    assert not [line for line in lines if "version" in line]


def test_everything_is_on_one_screen() -> None:
    lines = screen(FULL).splitlines()
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for said in (
        "version 17, tuned, since 2026-11-20 07:40 UTC (7 days); the gateway serves it",
        "2026-11-27 10:00 UTC: keep: 91.2% (88.0 to 94.1, n=312)",
        "check Fri 2026-11-27 11:00 UTC (in 20 min), refresh Mon 2026-11-30 10:40 UTC (in 3 days)",
        "alarm 5",
        "and 3 more",
        "48 wanted (12 urgent): `perpetune labels`; so far 45 by lot, 30 unasked",
        "1,000,000 predictions, 75 labelled, 16,700 requests a day this month",
        "$62.40 in November: training $1.20 (12.0 of 100 device hours), serving $61.20 (612 h)",
        "older versions: `perpetune status --all`",
        "does not answer: `perpetune up` (http://127.0.0.1:4200)",
        "next: `perpetune labels`",
    ):
        assert said in text, said


def test_what_could_not_be_read_is_said() -> None:
    lines = screen(replace(NEW, serving="3", unknown=("MLflow: the MLflow server does not answer",))).splitlines()
    assert lines[1] == "not read    MLflow: the MLflow server does not answer"
    assert lines[2:4] == ["champion    not known; the gateway serves version 3", "last check  not known"]


def test_what_was_not_read_is_not_said_to_be_none_or_free() -> None:
    costs = month_costs(load_params(ROOT / "params.yaml"), NOW, None, 12.0)
    assert costs.serving_hours is None and costs.line().startswith("at least $")
    unread = replace(NEW, time=NOW, unknown=("MLflow: down", "log: the database does not answer"), costs=costs)
    lines = screen(unread).splitlines()
    for name in ("champion", "last check", "alarms", "labels", "log"):
        assert f"{name:<11} not known" in lines
    assert next(line for line in lines if line.startswith("costs")).endswith("serving not known")
    assert "there may be others, of what was not read" in screen(replace(unread, alarms=("one",)))


def test_a_server_that_ends_with_the_command_is_not_shown() -> None:
    found = without_temporary(replace(FULL, addresses=NEW.addresses))
    assert (found.addresses["MLflow"], found.addresses["Prefect"]) == ("not running", "not running")
    assert {each.name: each.up for each in found.services}["MLflow"] is False
    assert "http://127.0.0.1:5000" not in screen(found)


def test_a_server_is_lasting_if_it_runs_elsewhere_or_under_perpetune_up(tmp_path: Path) -> None:
    def workspace(uri: str | None) -> Workspace:
        return Workspace(tmp_path, load_params(ROOT / "params.yaml"), Settings(mlflow_tracking_uri=uri))

    assert is_lasting(workspace("http://mlflow.example.org"))
    here = workspace(None)
    assert not is_lasting(here)
    here.home.mkdir(exist_ok=True)
    held = acquire(here.home / LOCK_FILE)
    assert held is not None
    with held:
        assert is_lasting(here)

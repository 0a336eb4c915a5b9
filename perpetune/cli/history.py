"""`perpetune replay` and `calibrate`: policies and thresholds on a recorded history."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import Json, Verbose, console, errors, for_people, print_json, say, shown
from perpetune.workspace import open_workspace

commands = typer.Typer()

HistoryArgument = Annotated[
    str | None,
    typer.Argument(
        help="JSONL, CSV or Parquet with input, output and time; or `reviews` or `reviews-stable`, the bundled streams. "
        "Without it: the prediction log."
    ),
]
LabelDelay = Annotated[float, typer.Option(min=0, help="Hours until a label is known, for rows that do not say it.")]
Start = Annotated[float, typer.Option(min=0.01, max=0.99, help="Ratio of the history that trains the first model.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting for this time, like watch.margin=0.03; may be given several times."),
]


@commands.command(epilog="Example: `perpetune replay history.jsonl --label-delay 24 --change 2024-05-01T00:00:00Z`")
def replay(
    history: HistoryArgument = None,
    label_delay: LabelDelay = 0.0,
    change: Annotated[
        list[str] | None, typer.Option(help="Time of a known change, ISO 8601; may be given several times.")
    ] = None,
    examples: Annotated[Path | None, typer.Option(help="A file of examples that trains the first model.")] = None,
    start: Start = 0.3,
    policy: Annotated[
        list[str] | None, typer.Option(help="Only this policy; may be given several times. The default is all.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="surrogate (seconds), or base: the model of params.yaml (hours).")
    ] = "surrogate",
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Training time charged for a refresh of the surrogate.")
    ] = None,
    settings: SettingsOption = None,
    out: Annotated[Path, typer.Option(help="Where replay.json and replay.png go.")] = Path(".perpetune/replay"),
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Simulate several retraining policies on a recorded history, side by side."""
    from perpetune.replay.command import run_replay, source_of, with_settings
    from perpetune.replay.report.table import show_replay

    with for_people():
        workspace = with_settings(open_workspace(), settings or ())
        source = source_of(history, label_delay, change or (), examples, start)
        found = run_replay(source, workspace, model, out, minutes, policy or (), errors)
        if json_:
            print_json(asdict(found))
            return
        show_replay(found, console, verbose=verbose)
        say(f"{shown(out / 'replay.png')} and {shown(out / 'replay.json')}")


@commands.command(
    epilog="Example: `perpetune calibrate history.jsonl --false-alarms-per-year 1 --to 2024-05-01T00:00:00Z`"
)
def calibrate(
    history: HistoryArgument = None,
    false_alarms_per_year: Annotated[
        float, typer.Option(min=0.01, help="How many false alarms a year are acceptable.")
    ] = 1.0,
    from_: Annotated[str | None, typer.Option("--from", help="Start of the stable period, ISO 8601.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="End of the stable period, ISO 8601.")] = None,
    label_delay: LabelDelay = 0.0,
    start: Start = 0.3,
    settings: SettingsOption = None,
    write: Annotated[bool, typer.Option("--write", help="Write the settings into params.yaml.")] = False,
    json_: Json = False,
) -> None:
    """Suggest the monitor's thresholds from a stable period of your own history."""
    from perpetune.params.edit import replace_values
    from perpetune.replay.command import run_calibration, source_of, with_settings
    from perpetune.replay.report.calibration_table import show_calibration

    with for_people():
        workspace = with_settings(open_workspace(), settings or ())
        source = source_of(history, label_delay, (), None, start)
        found, answered_by = run_calibration(source, workspace, from_, to, false_alarms_per_year, errors)
        if json_:
            print_json({**asdict(found), "answered_by": answered_by, "settings": found.settings})
        else:
            show_calibration(found, answered_by, console)
        if write:
            replace_values(workspace.root / "params.yaml", found.settings)
            errors.print("written into params.yaml")

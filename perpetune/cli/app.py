"""The command line: each command a few lines over a function or a flow."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from perpetune.errors import NoPrevious, PerpetuneError
from perpetune.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from perpetune.policy.decision.record import Decision
    from perpetune.runtime.prefect_api import FlowRun

NOTHING_TO_JUDGE = "nothing to judge: no champion has answered a request yet (`perpetune status`)"

app = typer.Typer(
    help="Keeps a fine-tuned language model good at its task for as long as it is in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
keys = typer.Typer(help="Keys of the gateway: who may ask, judge and release.", no_args_is_help=True)
app.add_typer(keys, name="keys")
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
PrefectPort = Annotated[int | None, typer.Option(help="Where Prefect listens; else 4200 or the next free port.")]
MlflowPort = Annotated[int | None, typer.Option(help="Where MLflow listens; else 5000 or the next free port.")]
HistoryArgument = Annotated[
    str | None,
    typer.Argument(
        help="JSONL, CSV or Parquet with input, output and time; or `reviews` or `reviews-quiet`, the bundled streams. "
        "Without it: the prediction log."
    ),
]
LabelDelay = Annotated[float, typer.Option(min=0, help="Hours until a label is known, where rows do not say it.")]
Start = Annotated[
    float, typer.Option(min=0.01, max=0.99, help="Share of the history that the first model learns from.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting for this time, like watch.margin=0.03; may be given several times."),
]
GatewayPort = Annotated[int | None, typer.Option(help="Where the gateway listens; else 8000 or the next free port.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.print(f"perpetune {version('perpetune')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What every command takes."""


@app.command(epilog="Example: `perpetune demo --folder /tmp/demo`")
def demo(
    folder: Annotated[
        Path, typer.Option(help="A folder of the demo's own; what an earlier demo left is replaced.")
    ] = Path("demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running at the end, until Ctrl-C.")] = False,
    json_: Json = False,
) -> None:
    """See the whole loop on real data: tune, serve, decay, be caught, retrain, swap."""
    from perpetune.demo.script import tell

    with _for_people():
        summary = tell(open_workspace(), folder.absolute(), keep=keep, console=errors if json_ else console)
        if json_:
            _print_json(summary)


@app.command(epilog="Example: `perpetune up --gateway-port 8080`")
def up(prefect_port: PrefectPort = None, mlflow_port: MlflowPort = None, gateway_port: GatewayPort = None) -> None:
    """Run all services on this machine until Ctrl-C."""
    from perpetune.runtime.ports import NamedPorts
    from perpetune.runtime.up import run_until_interrupted

    with _for_people():
        run_until_interrupted(open_workspace(), NamedPorts(prefect_port, mlflow_port, gateway_port), console)


@app.command(epilog="Example: `perpetune ingest tickets.jsonl`")
def ingest(
    file: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet: input and output, or OpenAI's chat format.")],
    json_: Json = False,
) -> None:
    """Bring examples of your own into the inbox, bad rows set aside."""
    from perpetune.curation.ingest import ingest as ingest_file
    from perpetune.curation.layout import INBOX

    with _for_people():
        workspace = open_workspace()
        done = ingest_file(file, workspace.root / INBOX)
        if json_:
            _print_json({**asdict(done), "rejected": len(done.rejected)})
            return
        note = " (this very file was ingested before: nothing to do)" if done.repeated else ""
        _say(f"{done.examples} examples in {_shown(done.path)}{note}")
        if done.rejected:
            rows = "1 row" if len(done.rejected) == 1 else f"{len(done.rejected)} rows"
            _say(f"{rows} set aside, with reasons, in {_shown(done.rejected_path)}; the first:")
            for row in done.rejected[:3]:
                _say(": ".join(["  line " + str(row.line), *([row.field] if row.field else []), row.reason]))
        if "inbox" not in workspace.params.fetch.sources:
            _say("params.yaml does not read the inbox yet: set `fetch: {sources: [inbox, traffic]}`")


@app.command(epilog="Example: `perpetune refresh --reason 'a new product line'`")
def refresh(
    reason: Annotated[str, typer.Option(help="Why; shown in Prefect and MLflow.")] = "somebody asked for it",
    again: Annotated[
        bool, typer.Option("--again", help="Even if data and settings are those of the last refresh.")
    ] = False,
    json_: Json = False,
) -> None:
    """Curate, fine-tune, evaluate, decide and, where the challenger is better, release it."""
    _run_flow("refresh", {"trigger": "manual", "reason": reason, "again": again}, json_)


@app.command(epilog="Example: `perpetune tune --minutes 20 --write`")
def tune(
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Device minutes, for those of params.yaml.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Most trials, for those of params.yaml.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the best settings into params.yaml.")] = False,
    json_: Json = False,
) -> None:
    """Search for a better rank, learning rate and number of epochs within a budget of device minutes."""
    with _for_people(), _services(worker=False, prefect=False) as workspace:
        from perpetune.tuning.params_file import rewrite
        from perpetune.tuning.terminal import show_tuning, tune_aloud
        from perpetune.tuning.tune import with_budget

        found = tune_aloud(with_budget(workspace, minutes, trials), errors if json_ else console)
        if json_:
            _print_json(asdict(found))
        else:
            show_tuning(found, console)
        if write and found.changes:
            rewrite(workspace.root / "params.yaml", {change.field: change.best for change in found.changes})
            errors.print("written into params.yaml; `perpetune refresh` trains with it")


@app.command(epilog="Example: `perpetune replay history.jsonl --label-delay 24 --change 2024-05-01T00:00:00Z`")
def replay(
    history: HistoryArgument = None,
    label_delay: LabelDelay = 0.0,
    change: Annotated[
        list[str] | None, typer.Option(help="When the world changed, ISO 8601; may be given several times.")
    ] = None,
    examples: Annotated[Path | None, typer.Option(help="What the first model learns from, a file of examples.")] = None,
    start: Start = 0.3,
    policy: Annotated[
        list[str] | None, typer.Option(help="Only this policy; may be given several times. The default is all.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="stand-in (seconds), or base: the model of params.yaml (hours).")
    ] = "stand-in",
    minutes: Annotated[
        float | None, typer.Option(min=0, help="That a refresh of the stand-in is charged with.")
    ] = None,
    settings: SettingsOption = None,
    out: Annotated[Path, typer.Option(help="Where replay.json and replay.png go.")] = Path(".perpetune/replay"),
    json_: Json = False,
) -> None:
    """Live through a recorded history under several policies of retraining, side by side."""
    from perpetune.replay.command import replayed, source_of, with_settings
    from perpetune.replay.report.table import show_replay

    with _for_people():
        workspace = with_settings(open_workspace(), settings or ())
        source = source_of(history, label_delay, change or (), examples, start)
        found = replayed(source, workspace, model, out, minutes, policy or (), errors)
        if json_:
            _print_json(asdict(found))
            return
        show_replay(found, console)
        _say(f"{_shown(out / 'replay.png')} and {_shown(out / 'replay.json')}")


@app.command(epilog="Example: `perpetune calibrate history.jsonl --false-alarms-per-year 1 --to 2024-05-01T00:00:00Z`")
def calibrate(
    history: HistoryArgument = None,
    false_alarms_per_year: Annotated[float, typer.Option(min=0.01, help="How many you will bear.")] = 1.0,
    from_: Annotated[str | None, typer.Option("--from", help="The quiet stretch begins here, ISO 8601.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The quiet stretch ends here.")] = None,
    label_delay: LabelDelay = 0.0,
    start: Start = 0.3,
    settings: SettingsOption = None,
    write: Annotated[bool, typer.Option("--write", help="Write the settings into params.yaml.")] = False,
    json_: Json = False,
) -> None:
    """Suggest the monitor's thresholds from a quiet stretch of your own history."""
    from perpetune.replay.command import calibrated, source_of, with_settings
    from perpetune.replay.report.calibration_table import show_calibration
    from perpetune.tuning.params_file import rewrite

    with _for_people():
        workspace = with_settings(open_workspace(), settings or ())
        source = source_of(history, label_delay, (), None, start)
        found, answered_by = calibrated(source, workspace, from_, to, false_alarms_per_year, errors)
        if json_:
            _print_json({**asdict(found), "answered_by": answered_by, "settings": found.settings})
        else:
            show_calibration(found, answered_by, console)
        if write:
            rewrite(workspace.root / "params.yaml", found.settings)
            errors.print("written into params.yaml")


@app.command(epilog="Example: `perpetune watch`")
def watch(json_: Json = False) -> None:
    """Judge the newest traffic; decay starts a refresh."""
    _run_flow("watch", {"trigger": "manual"}, json_)


@app.command(epilog="Example: `perpetune status --json`")
def status(json_: Json = False) -> None:
    """Which version serves, what it was last judged on, and what the log holds."""
    from perpetune.explain.status import read_status, show_status

    with _for_people(), _services(worker=False) as workspace:
        found = read_status(workspace)
        if json_:
            _print_json(asdict(found))
        else:
            show_status(found, console)


@app.command(epilog="Example: `perpetune explain 3 --html version-3.html`")
def explain(
    version: Annotated[str, typer.Argument(help="A version number.")],
    html: Annotated[Path | None, typer.Option(help="Write it as a page, one file that needs nothing else.")] = None,
    json_: Json = False,
) -> None:
    """What triggered a version, its data and how it differs, the numbers, who approved, what it costs."""
    from perpetune.explain.gather import gather
    from perpetune.explain.page import write_page
    from perpetune.explain.terminal import as_dict, show_report

    with _for_people(), _services(worker=False, prefect=False) as workspace:
        story = gather(workspace, version)
        if html is not None:
            write_page(html, story)
            errors.print(f"written to {html}", markup=False)
        if json_:
            _print_json(as_dict(story))
        elif html is None:
            show_report(story, console)


@app.command(epilog="Example: `perpetune reproduce 3 --keep`")
def reproduce(
    version: Annotated[str, typer.Argument(help="A version number.")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the code, the data and the adapter on disk.")] = False,
    json_: Json = False,
) -> None:
    """Train a version again from its recorded data, settings and code, and compare. Exits with 1 where it differs."""
    from perpetune.reproduction.terminal import reproduce_aloud, show_reproduction

    with _for_people(), _services(worker=False, prefect=False) as workspace:
        found = reproduce_aloud(workspace, version, errors if json_ else console, keep=keep)
        if json_:
            _print_json(asdict(found))
        else:
            show_reproduction(found, console)
    if found.comparison.verdict == "different":
        raise typer.Exit(1)


@app.command(epilog="Example: `perpetune promote 3 --reason 'we want it, dearer or not'`")
def promote(
    version: Annotated[str, typer.Argument(help="A version number, of any system; `perpetune status` lists them.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the decision record.")],
    json_: Json = False,
) -> None:
    """Have a version serve on your word, whatever the gate said of it."""
    with _for_people(), _services(worker=False, prefect=False) as workspace:
        from perpetune.loop.rollout.promote import emit_event, promote_by_hand

        done = promote_by_hand(workspace, version, reason)
        emit_event(workspace, done, lambda line: errors.print(line, markup=False))
        if json_:
            _print_json({**asdict(done.released), "system": done.system, "decision": _as_json(done.decision)})
            return
        if done.released.served:
            _say(f"version {version} ({done.system}) serves after {done.released.seconds:.1f} s")
        else:
            _say(f"version {version} ({done.system}) is champion; no gateway runs: the next one to start serves it")


@app.command(epilog="Example: `perpetune rollback --reason 'it promises refunds'`")
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the decision record.")] = "somebody asked for it",
    json_: Json = False,
) -> None:
    """Let the previous champion serve again, at once."""
    from perpetune.runtime.gateway_client import NoGateway, gateway_of

    with _for_people():
        went = refusal = None
        try:
            # Before anything heavy is imported: the gateway can do it alone.
            went = gateway_of(open_workspace()).roll_back(reason)
            errors.print(f"version {went.restored} serves again instead of version {went.rolled_back}", markup=False)
        except NoGateway:
            pass
        except NoPrevious as fault:
            refusal = fault
        with _services(worker=False, prefect=False) as workspace:
            from perpetune.loop.rollout.rollback import emit_event, move_aliases, with_choices, write_down

            if refusal is not None:
                raise with_choices(workspace, refusal)
            done = went or move_aliases(workspace)
            if went is None:
                errors.print("no gateway runs: the next one to start serves the previous champion", markup=False)
            decision = write_down(workspace, done, reason)
            emit_event(workspace, done, reason, lambda line: errors.print(line, markup=False))
            if json_:
                _print_json({**asdict(done), "reason": reason, "decision": decision.model_dump(mode="json")})
            else:
                _say(decision.reason)


@app.command(epilog="Example: `perpetune labels --out wanted.jsonl`, then `perpetune labels --bring wanted.jsonl`")
def labels(
    out: Annotated[Path | None, typer.Option(help="Write them here as JSONL, each with an empty label.")] = None,
    bring: Annotated[Path | None, typer.Option(help="Bring back such a file, with labels filled in.")] = None,
    json_: Json = False,
) -> None:
    """The requests whose labels are wanted, as the watch chose them; labels brought back count as feedback."""
    from perpetune.cli.label_tables import show_imported, show_requests
    from perpetune.prediction_log.label_file import import_labels, write_requests
    from perpetune.prediction_log.label_requests import open_requests
    from perpetune.prediction_log.redaction import Redactor, group_key

    with _for_people():
        params = open_workspace().params
        with _prediction_log() as log:
            redactor = Redactor(group_key(None)) if bring and params.log.redact else None
            brought = import_labels(log, bring, redactor) if bring else None
            wanted = open_requests(log, params.task.name)
        if out:
            write_requests(out, wanted)
        if json_:
            shown: dict[str, object] = {"wanted": [asdict(each) for each in wanted]}
            if brought:
                rejected = [row.model_dump() for row in brought.rejected]
                shown |= {"brought": {**asdict(brought), "rejected": rejected}}
            _print_json(shown)
            return
        if brought:
            show_imported(brought, console)
        elif out:
            _say(f"{len(wanted)} requests in {_shown(out)}: fill in `label` and bring it back with --bring")
        else:
            show_requests(wanted, console)


@keys.command("add", epilog="Example: `perpetune keys add shop --role ask --role feedback`")
def keys_add(
    name: Annotated[str, typer.Argument(help="Who it is for, such as an application.")],
    role: Annotated[
        list[str],
        typer.Option(help="ask, feedback or admin (which may do everything); several may be given."),
    ],
    json_: Json = False,
) -> None:
    """Make a key and print it, once: only its digest is stored. From the first key on, every request needs one."""
    from perpetune.prediction_log.api_keys import add_key, parse_role

    with _for_people():
        roles = [parse_role(each) for each in role]
        with _prediction_log() as log:
            secret = add_key(log, name, roles)
        if json_:
            _print_json({"name": name, "roles": sorted(set(roles)), "key": secret})
            return
        for line in (
            "this is the only time that the key is shown; send it as `Authorization: Bearer KEY`",
            "every request needs a key now; ours take one with the role admin from PERPETUNE_API_KEY",
        ):
            errors.print(line, markup=False, soft_wrap=True)
        typer.echo(secret)


@keys.command("list", epilog="Example: `perpetune keys list --json`")
def keys_list(json_: Json = False) -> None:
    """Every key that was ever made, revoked ones too."""
    from rich.table import Table

    from perpetune.prediction_log.api_keys import list_keys

    with _for_people():
        with _prediction_log() as log:
            found = list_keys(log)
        if json_:
            _print_json([asdict(key) for key in found])
            return
        if not found:
            _say("there is no key yet: anybody who reaches the gateway may ask it")
            return
        table = Table("name", "roles", "made", "revoked")
        for key in found:
            revoked = f"{key.revoked:%Y-%m-%d %H:%M %Z}" if key.revoked else ""
            table.add_row(key.name, ", ".join(key.roles), f"{key.created:%Y-%m-%d %H:%M %Z}", revoked)
        console.print(table)


@keys.command("revoke", epilog="Example: `perpetune keys revoke shop`")
def keys_revoke(name: Annotated[str, typer.Argument(help="The name it was made with.")], json_: Json = False) -> None:
    """End a key for good. Gateways that run refuse it within seconds."""
    from perpetune.prediction_log.api_keys import revoke_key

    with _for_people():
        with _prediction_log() as log:
            key = revoke_key(log, name)
        if json_:
            _print_json(asdict(key))
        else:
            _say(f"{key.name} was revoked at {key.revoked:%Y-%m-%d %H:%M:%S %Z}")


@contextmanager
def _prediction_log() -> Iterator[Engine]:
    """The database of this workspace's gateway."""
    from perpetune.prediction_log.log import open_log

    log = open_log(open_workspace().settings.prediction_log)
    try:
        yield log
    finally:
        log.dispose()


def _run_flow(flow: Literal["refresh", "watch"], parameters: dict[str, object], json_: bool) -> None:
    """Start a deployment, pass its log on, and exit as it did."""
    from perpetune.explain.status import decision_of
    from perpetune.runtime.prefect_api import Prefect

    out = errors if json_ else console

    def say(line: str) -> None:
        out.print(line, markup=False, soft_wrap=True)

    with _for_people(), _services(worker=True) as workspace:
        prefect = Prefect(str(workspace.settings.prefect_api_url))
        run = prefect.start(f"{flow}/{workspace.params.task.name}", parameters)
        say(f"{run.name}: {run.url}")
        ended = prefect.follow(run, lambda line: say(f"  {line}"))
        if fault := ended.fault():
            if json_:
                _print_json({**asdict(ended), "decision": None})
            raise fault
        _show_verdict(decision_of(workspace, flow, run.id), ended, json_)


def _show_verdict(decision: Decision | None, ended: FlowRun, json_: bool) -> None:
    """The verdict as the last line; the flow's log has said why, and what to do next."""
    from perpetune.policy.decision.headline import headline
    from perpetune.policy.decision.next_step import next_steps

    verdict = headline(decision) if decision else NOTHING_TO_JUDGE
    if json_:
        steps = next_steps(decision) if decision else ()
        _print_json({**asdict(ended), "verdict": verdict, "next": steps, "decision": _as_json(decision)})
    else:
        _say(verdict)


@contextmanager
def _services(*, worker: bool, prefect: bool = True) -> Iterator[Workspace]:
    """The workspace with the addresses of its services: those that run, else ones started for this command."""
    from perpetune.runtime.up import with_services

    def report(line: str) -> None:
        errors.print(line, markup=False)

    with with_services(open_workspace(), worker=worker, report=report, prefect=prefect) as workspace:
        yield workspace


@contextmanager
def _for_people() -> Iterator[None]:
    """Errors that people can mend are printed as they are; Ctrl-C and SIGTERM stop all children."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except PerpetuneError as fault:
        errors.print(str(fault), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted")
        raise typer.Exit(130) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def _as_json(decision: Decision | None) -> dict[str, Any] | None:
    return decision.model_dump(mode="json") if decision else None


def _shown(path: Path | None) -> str:
    """A path as short as it can be."""
    if path is None:
        return ""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)

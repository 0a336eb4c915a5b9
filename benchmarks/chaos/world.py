"""The services of one host, as production has them, each behind a proxy that can cut it off.

PostgreSQL holds the prediction log, MLflow and Prefect; artifacts go through MLflow to an S3 server; two gateways ask two
engines. The model is a tiny random one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import httpx
import mlflow
import yaml

from chaos import postgres, task
from chaos.disk import Disk
from chaos.process import Keeper, Process, base_environment, write_clock
from chaos.proxy import Network, Proxy
from perpetune.curation.ingest import ingest
from perpetune.curation.running.layout import INBOX
from perpetune.records import write_jsonl
from perpetune.runtime.prefect_api import Prefect
from perpetune.runtime.processes.supervisor import answers, free_ports
from perpetune.runtime.stack import PYTHON, Ports, environment, gateway, servers, worker
from perpetune.tracking.runs import connect
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[2]
GATEWAYS, ENGINES = ("gateway-1", "gateway-2"), ("engine-1", "engine-2")
BEHIND_PROXIES = ("postgres", "mlflow", "prefect", "s3", *ENGINES, *GATEWAYS)
START_SECONDS = 600.0  # on a busy machine
_BUCKET, _KEY, _REGION = "mlflow", "chaos", "us-east-1"


@dataclass
class World:
    """`direct` and `through` are the ports of the services and of their proxies."""

    workspace: Workspace
    processes: Mapping[str, Process]
    proxies: Mapping[str, Proxy]
    disks: Mapping[str, Disk]
    direct: Mapping[str, int]
    prefect: Prefect
    environment: Mapping[str, str]
    has_clocks: bool
    down: dict[tuple[str, float], float] = field(default_factory=dict)  # name and begin: until when (monotonic)

    def url(self, gateway: str) -> str:
        """Where clients ask a gateway."""
        return f"http://127.0.0.1:{self.proxies[gateway].port}"

    def healthy(self) -> bool:
        return all(each.alive and each.healthy() for each in self.processes.values())

    def lived(self, names: Sequence[str], since: float, until: float) -> bool:
        """Whether at every moment of a time one of these services was not broken."""
        begins = [start for (name, start), _ in self._down() if name in names and since <= start <= until]
        return all(any(not self._was_down(name, moment) for name in names) for moment in [since, *begins])

    def _was_down(self, name: str, moment: float) -> bool:
        return any(one == name and start <= moment < end for (one, start), end in self._down())

    def _down(self) -> list[tuple[tuple[str, float], float]]:
        return list(self.down.items())


@contextmanager
def running_world(folder: Path | None = None, *, first_labels: int | None = None) -> Iterator[World]:
    """All services, ready to answer with the first version, in a new folder; everything ends with the block.

    A check starts the first refresh after so many labels; None for the usual number.
    """
    before = dict(os.environ)
    with ExitStack() as stack:
        root = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos")))
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        stack.callback(_set_environment, before)
        _set_environment(base_environment())
        world = _build(root, stack, first_labels)
        keeper = Keeper(world.processes)
        stack.callback(_end, world, keeper)
        _start(world, keeper)
        # MLflow's own memory of an address, which tests before this one may have left, precedes the environment.
        stack.callback(mlflow.set_tracking_uri, mlflow.get_tracking_uri())
        connect(world.environment["MLFLOW_TRACKING_URI"])
        yield world


def _set_environment(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ |= variables


def _end(world: World, keeper: Keeper) -> None:
    keeper.stop()
    for each in world.processes.values():
        each.held = True
    for disk in world.disks.values():
        disk.free()
    for name in (*GATEWAYS, "worker", "prefect", "mlflow", *ENGINES, "s3", "postgres"):
        each = world.processes[name]
        each.kill() if name in ("postgres", "worker") else each.terminate(5)


def _build(root: Path, stack: ExitStack, first_labels: int | None) -> World:
    disks = {
        "workspace disk": Disk(root / "workspace", 600),
        "postgres disk": Disk(root / "postgres", 500),
        "s3 disk": Disk(root / "s3", 300),
    }
    for disk in disks.values():
        stack.callback(disk.close)
    home, logs = disks["workspace disk"].folder, root / "logs"
    logs.mkdir()
    _write_workspace(home, task.save_model(root / "base"), first_labels)
    names = [*BEHIND_PROXIES, "worker"]
    ports = free_ports(len(names) + len(BEHIND_PROXIES) + 1)
    direct = dict(zip(names, ports, strict=False))
    network = Network()
    stack.callback(network.close)
    through = dict(zip(BEHIND_PROXIES, ports[len(names) :], strict=False))
    proxies = {name: network.proxy(port, direct[name]) for name, port in through.items()}
    balancer = network.proxy(ports[-1], *(direct[name] for name in GATEWAYS))
    workspace = open_workspace(home)
    around = _environment(workspace, through, balancer.port, direct)
    library = _clock_library(root)
    processes = _processes(workspace, root, around, direct, through, library)
    os.environ |= around | _addresses(direct, balancer.port)
    found = open_workspace(home)
    prefect = Prefect(str(found.settings.prefect_api_url))
    return World(found, processes, proxies, disks, direct, prefect, around, library is not None)


def _write_workspace(home: Path, base: Path, first_labels: int | None) -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    wanted = {**task.SETTINGS, "base": {"model": f"path:{base}", "revision": None}}
    for section, values in wanted.items():
        settings[section] = settings.get(section, {}) | values
    if first_labels is not None:
        settings["refresh"]["first_labels"] = first_labels
    (home / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", home)
    rows = [row for desk in task.LABELS for row in task.questions(desk)[:70]]
    write_jsonl(home / "start.jsonl", rows)
    ingest(home / "start.jsonl", home / INBOX)


def _environment(
    workspace: Workspace, through: Mapping[str, int], balancer: int, direct: Mapping[str, int]
) -> dict[str, str]:
    """What the services share: each other's addresses, through the proxies."""
    code = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks", ROOT / "tests" / "helpers")))
    own = environment(workspace, Ports(worker=direct["worker"]))
    return {
        **os.environ,
        **own,
        **_addresses(through, balancer),
        "PERPETUNE_VLLM_URL": ",".join(f"http://127.0.0.1:{through[name]}" for name in ENGINES),
        "PERPETUNE_ASSETS": str(ROOT / "assets"),
        "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url("postgresql+asyncpg", through["postgres"], "prefect"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # Prefect's lowest
        "PYTHONPATH": code,
        "OMP_NUM_THREADS": "1",
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _KEY,
        "AWS_DEFAULT_REGION": _REGION,
        "NANIO_ACCESS_KEY": _KEY,
        "NANIO_SECRET_KEY": _KEY,
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{through['s3']}",
    }


def _addresses(ports: Mapping[str, int], balancer: int) -> dict[str, str]:
    return {
        "PREFECT_API_URL": f"http://127.0.0.1:{ports['prefect']}/api",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "PERPETUNE_GATEWAY_URL": f"http://127.0.0.1:{balancer}",
        "PERPETUNE_DATABASE_URL": postgres.url("postgresql", ports["postgres"], "perpetune"),
    }


def _clock_library(folder: Path) -> Path | None:
    """clock.c, compiled; None on a machine without a C compiler."""
    library = folder / "clock.so"
    words = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(Path(__file__).with_name("clock.c")), "-ldl"]
    if shutil.which("cc") is None or subprocess.run(words, capture_output=True).returncode != 0:
        return None
    return library


def _processes(
    workspace: Workspace,
    root: Path,
    around: Mapping[str, str],
    direct: Mapping[str, int],
    through: Mapping[str, int],
    library: Path | None,
) -> dict[str, Process]:
    ports = Ports(direct["prefect"], direct["mlflow"], 0, direct["worker"])
    prefect, mlflow = servers(workspace, ports)
    at = "http://127.0.0.1:{}{}".format
    store = {
        "--backend-store-uri": postgres.url("postgresql+psycopg", through["postgres"], "mlflow"),
        "--artifacts-destination": f"s3://{_BUCKET}",
    }
    base = str(root / "base")
    commands: dict[str, tuple[tuple[str, ...], Callable[[], bool]]] = {
        "postgres": (
            postgres.command(root / "postgres", direct["postgres"]),
            lambda: postgres.accepts(direct["postgres"]),
        ),
        "s3": (_s3_server(root / "s3", direct["s3"]), lambda: _refuses(at(direct["s3"], "/"))),
        "prefect": (prefect.command, _up(str(prefect.health))),
        "mlflow": (_replaced(mlflow.command, store), _up(str(mlflow.health))),
        "worker": (worker(direct["worker"]).command, _up(str(worker(direct["worker"]).health))),
        **{
            name: (
                (PYTHON, "-m", "chaos.engine", "--port", str(direct[name]), "--base", base),
                _up(at(direct[name], "/health")),
            )
            for name in ENGINES
        },
        **{name: (gateway(direct[name]).command, _up(at(direct[name], "/readyz"))) for name in GATEWAYS},
    }
    return {
        name: _process(name, command, healthy, root, around, library) for name, (command, healthy) in commands.items()
    }


def _process(
    name: str,
    command: tuple[str, ...],
    healthy: Callable[[], bool],
    root: Path,
    around: Mapping[str, str],
    library: Path | None,
) -> Process:
    variables, clock = dict(around), None
    if library is not None:
        clock = root / f"{name}.clock"
        write_clock(clock, 0)
        variables |= {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(clock)}
    return Process(name, command, root / "workspace", variables, root / "logs" / f"{name}.log", healthy, clock)


def _s3_server(folder: Path, port: int) -> tuple[str, ...]:
    """Its objects are files, so that a killed server loses none; it refuses requests that are signed in another time."""
    return (
        *(PYTHON, "-m", "nanio", "serve", "--data-dir", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"),
    )


def _refuses(url: str) -> bool:
    """Whether a server answers, if only that the request was not signed."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 403
    except httpx.HTTPError:
        return False


def _make_bucket(port: int) -> None:
    key = {"aws_access_key_id": _KEY, "aws_secret_access_key": _KEY, "region_name": _REGION}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **key).create_bucket(Bucket=_BUCKET)


def _up(url: str) -> Callable[[], bool]:
    return lambda: answers(url)


def _replaced(command: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """The command with other values of these options."""
    words = list(command)
    for option, value in values.items():
        words[words.index(option) + 1] = value
    return tuple(words)


def _start(world: World, keeper: Keeper) -> None:
    processes = world.processes
    postgres.make_data(world.disks["postgres disk"].folder)
    _start_together(processes, "postgres", "s3", *ENGINES)
    postgres.make_databases(world.direct["postgres"])
    _make_bucket(world.direct["s3"])
    _start_together(processes, "prefect", "mlflow")
    _start_together(processes, "worker", *GATEWAYS)
    keeper.start()


def _start_together(processes: Mapping[str, Process], *names: str) -> None:
    for name in names:
        processes[name].start()
    for name in names:
        wait_for(processes[name].healthy, START_SECONDS, f"{name} to be healthy (see {processes[name].log})")


def wait_for(check: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        with suppress(InterruptedError):
            time.sleep(0.25)

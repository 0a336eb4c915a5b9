"""What the gateway itself costs: CPU time a request, latency that it adds, and labels a second.

    python benchmarks/gateway_cost.py
    python benchmarks/gateway_cost.py --quick
    make litellm portkey && python benchmarks/gateway_cost.py       # beside LiteLLM's and Portkey's gateways too

A closed-loop load generator, the gateway and a server with vLLM's API that answers after a while are three processes. Each
has a core of its own if there are three: the result is then `gateway-cost-own-cores`. With two, `gateway-cost`, the
gateway has one and the others share the other. CPU times are those of the gateway's process, its writer of the
prediction log included, so that they depend little on what else runs on the machine. Each prompt is sent once, so that
only the instruction is the same. The server waits for 50 to 150 ms: if all answers took as long, all clients would go on
to send at the same moment; for the same reason the clients begin one after the other. It gives that time as the number
of tokens; "added" is a quantile of the latency beyond it, less that of the same server asked directly, and holds only if nothing else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil
from aiohttp import web
from shared.load import Target, drive
from shared.record import Claim, write

from perpetune.params import load_params
from perpetune.runtime.processes.supervisor import answers, free_ports
from perpetune.testing.fake_vllm import BASE, FakeVllm

TASK = "bench"
CLIENTS = (8, 64)
PROMPTS = tuple(f"Order {number} came late, and the parcel was open. What now?" for number in range(5_000))
CPU_GOAL_MS = 0.5
P50_GOAL_MS, P99_GOAL_MS = 1.0, 5.0
LABELS_GOAL = 5_000.0
BATCH = 1_000  # labels
LITELLM = Path(".venv-litellm/bin/litellm")
PORTKEY = Path(".portkey/node_modules/@portkey-ai/gateway/build/start-server.js")
PEER_GOALS = {"litellm": 5.0, "portkey": 1.0}  # times our CPU a request
PEER_NAMES = {"litellm": "LiteLLM's proxy", "portkey": "Portkey's gateway"}
ENGINE_SECONDS = (0.05, 0.15)  # for an answer, so that 64 clients do not saturate the gateway
TICKS = 10_000  # a second, in which the server counts its wait
_READY_SECONDS = 180.0


@dataclass(frozen=True)
class Turn:
    """A measurement of a target: CPU and latencies in milliseconds."""

    target: str
    clients: int
    requests: int
    failed: int
    per_second: float
    cpu: float
    p50: float
    p99: float
    over_p50: float  # the engine's wait
    over_p99: float


@dataclass(frozen=True)
class Batches:
    """Feedback in batches: labels a second, and the gateway's CPU for one in microseconds."""

    labels: int
    per_second: float
    cpu: float


@dataclass(frozen=True)
class Server:
    """A server process and what it is asked for."""

    target: Target
    process: psutil.Process

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


def main() -> int:
    asked = _arguments()
    if asked.role != "gateway":
        gc.disable()  # a full collection of what the server and the clients keep holds them up for a quarter of a second
    if asked.role == "upstream":
        serve_upstream(asked.assets, asked.ports[0])
    elif asked.role == "gateway":
        serve_gateway(asked.assets, asked.folder, *asked.ports)
    else:
        return _measure(asked)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--requests", type=int, default=1_600, help="per target, number of clients and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument("--litellm", type=Path, default=LITELLM, help="its command; left out if there is none")
    parser.add_argument("--portkey", type=Path, default=PORTKEY, help="its program; left out if there is none")
    parser.add_argument("--quick", action="store_true", help="few requests, one round, no output files")
    parser.add_argument("--role", choices=("upstream", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.quick:
        asked.requests, asked.rounds, asked.labels = 400, 1, 5_000
    return asked


def serve_upstream(assets: Path, port: int) -> None:
    """A server with vLLM's API that always gives the same answer."""
    from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer

    draw = random.Random(1)

    async def answer(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        seconds = draw.uniform(*ENGINE_SECONDS)
        await asyncio.sleep(seconds)
        waited = round(seconds * TICKS)
        message = {"role": "assistant", "content": "Sorry."}
        choice = {"index": 0, "text": "Sorry.", "message": message, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 20, "completion_tokens": waited, "total_tokens": 20 + waited}
        reply = {"id": "one", "object": "chat.completion", "created": 0, "model": BASE, "choices": [choice]}
        return web.json_response({**reply, "usage": usage})

    chat = load_chat_tokenizer(load_params(Path("params.yaml")).base, assets)
    web.run_app(FakeVllm(chat=chat, reply=answer).app(), host="127.0.0.1", port=port, print=None, access_log=None)


def serve_gateway(assets: Path, folder: Path, port: int, upstream: int) -> None:
    """A gateway of one untrained version over the server, with its log and its spool in the folder.

    It imports what `perpetune serve` does, and renders prompts with the tokenizer of params.yaml.
    """
    import perpetune.loop.first_version
    import perpetune.tracking.registry  # noqa: F401
    from perpetune.engines.engine_by_system import EngineBySystem
    from perpetune.engines.linear_engine import LinearEngine
    from perpetune.engines.remote_engine import RemoteEngine
    from perpetune.engines.vllm_engine import VllmEngine
    from perpetune.gateway.app import create_app
    from perpetune.gateway.server import listen, run
    from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer
    from perpetune.model.release import Release
    from perpetune.params import LogParams, ServeParams
    from perpetune.prediction_log.database import open_log
    from perpetune.testing.fake_registry import FakeSource

    base = load_params(Path("params.yaml")).base
    params = ServeParams(requests_per_minute=None, max_queue=256)
    load = cache(lambda: load_chat_tokenizer(base, assets))
    engine = VllmEngine(f"http://127.0.0.1:{upstream}", base, params, load)
    release = Release(TASK, "1", folder, "Answer in one sentence.", None, base, system="prompted")
    app = create_app(
        TASK,
        engine=EngineBySystem(
            {"tuned": engine, "prompted": engine, "linear": LinearEngine(assets), "remote": RemoteEngine(None)}
        ),
        source=FakeSource([release], champion="1"),
        log=open_log(f"sqlite:///{folder / 'predictions.db'}"),
        params=params,
        max_new_tokens=16,
        log_params=LogParams(redact=False),
        spool=folder / "spool",
    )
    with listen("127.0.0.1", port) as address:
        run(app, address, grace_seconds=5, drain_seconds=0)


def _measure(asked: argparse.Namespace) -> int:
    began, cores = time.monotonic(), len(psutil.Process().cpu_affinity())
    with (
        tempfile.TemporaryDirectory(prefix="gateway-cost-") as folder,
        servers(asked.assets, Path(folder), asked.litellm, asked.portkey) as (direct, gateway, *peers),
    ):
        turns = overhead([direct, gateway, *peers], asked.clients, asked.rounds, asked.requests)
        batches = feedback(gateway, Path(folder), asked.labels)
    claims = [*claims_of_requests(turns), *claims_beside_peers(turns), claim_of_labels(batches)]
    for name in PEER_NAMES.keys() - {peer.target.name for peer in peers}:
        print(f"{PEER_NAMES[name]} is not there: see `make {name}`")
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.4g} "
            f"({claim.interval[0]:.4g} to {claim.interval[1]:.4g}), goal {claim.goal:g}"
        )
    if not asked.quick:
        name = "gateway-cost-own-cores" if cores >= 3 else "gateway-cost"
        details = {"turns": [asdict(turn) for turn in turns], "feedback": asdict(batches)}
        print(write(name, claims, details, time.monotonic() - began))
    return 0 if all(claim.holds for claim in claims) else 1


@contextmanager
def servers(assets: Path, folder: Path, litellm: Path, portkey: Path) -> Iterator[list[Server]]:
    """The fake server, a gateway in front of it, and in front of it too those of LiteLLM and Portkey that are there."""
    ports = free_ports(4)
    urls = [f"http://127.0.0.1:{each}" for each in ports]
    instruction = "Answer in one sentence."
    upstream, port, *of_peers = map(str, ports)
    with ExitStack() as started:
        behind = started.enter_context(_process(_role("upstream", assets, "--ports", upstream)))
        before = started.enter_context(
            _process(_role("gateway", assets, "--folder", str(folder), "--ports", port, upstream))
        )
        _wait_until(f"{urls[0]}/health", behind)
        _wait_until(f"{urls[1]}/readyz", before)
        _pin(before, behind, psutil.Process())
        found = [
            Server(Target("direct", urls[0], BASE, instruction), behind),
            Server(Target("gateway", urls[1], TASK, None), before),
        ]
        if litellm.is_file():
            beside = started.enter_context(
                _process(_litellm(litellm.absolute(), folder, urls[0], of_peers[0]), quiet=True)
            )
            _wait_until(f"{urls[2]}/health/liveliness", beside)
            found.append(Server(Target("litellm", urls[2], TASK, instruction), beside))
        if portkey.is_file():
            command = ["node", str(portkey), f"--port={of_peers[1]}", "--headless"]
            beside = started.enter_context(_process(command, quiet=True))
            _wait_until(urls[3], beside)
            found.append(Server(Target("portkey", urls[3], BASE, instruction, _portkey(urls[0])), beside))
        yield found


def _pin(gateway: psutil.Process, *others: psutil.Process) -> None:
    """Give each process a core of its own, far from the next; if the cores are too few, the others share one."""
    cores = gateway.cpu_affinity()
    step = max(1, len(cores) // (1 + len(others)))
    for place, process in enumerate([gateway, *others]):
        process.cpu_affinity([cores[min(place * step, len(cores) - 1)]])


def _litellm(command: Path, folder: Path, upstream: str, port: str) -> list[str]:
    """The command of LiteLLM's proxy with one model; it keeps no log, and counts no costs."""
    config = folder / "litellm.json"  # JSON is YAML
    behind = {"model": f"openai/{BASE}", "api_base": f"{upstream}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": TASK, "litellm_params": behind}],
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    return [str(command), "--config", str(config), "--host", "127.0.0.1", "--port", port, "--telemetry", "False"]


def _portkey(upstream: str) -> dict[str, str]:
    """The headers that tell Portkey's gateway where to ask; it keeps no log without its service."""
    return {
        "authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream}/v1",
    }


def _role(role: str, assets: Path, *more: str) -> list[str]:
    return [sys.executable, __file__, "--role", role, "--assets", str(assets), *more]


@contextmanager
def _process(command: Sequence[str], *, quiet: bool = False) -> Iterator[psutil.Process]:
    to = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, stdout=to, stderr=to) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait_until(url: str, process: psutil.Process) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not answers(url):
        if process.status() == psutil.STATUS_ZOMBIE:
            raise SystemExit(f"the process that should answer at {url} has ended")
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} did not answer within {_READY_SECONDS:g} s")
        time.sleep(0.1)


def overhead(servers: Sequence[Server], clients: Sequence[int], rounds: int, requests: int) -> list[Turn]:
    """Measure them alternately. LiteLLM gets fewer requests, because it takes long for each."""
    for server in servers:  # warm-up
        drive(server.target, PROMPTS, clients=8, requests=200, max_tokens=4)
    turns = []
    for _ in range(rounds):
        for count in clients:
            for server in servers:
                turns.append(_turn(server, count, requests // 4 if server.target.name == "litellm" else requests))
                _print(turns[-1])
    return turns


def _turn(server: Server, clients: int, requests: int) -> Turn:
    before, began = server.cpu_seconds(), time.perf_counter()
    ramp = statistics.mean(ENGINE_SECONDS)
    done = drive(server.target, PROMPTS, clients=clients, requests=requests, max_tokens=4, ramp=ramp)
    seconds = time.perf_counter() - began
    time.sleep(0.3)  # in which the last rows reach the prediction log
    cpu = server.cpu_seconds() - before
    took = [1000 * each.seconds for each in done]
    over = [1000 * (each.seconds - each.completion_tokens / TICKS) for each in done]
    return Turn(
        target=server.target.name,
        clients=clients,
        requests=len(done),
        failed=sum(each.status != 200 for each in done),
        per_second=len(done) / seconds,
        cpu=1000 * cpu / len(done),
        p50=statistics.median(took),
        p99=_quantile(took, 0.99),
        over_p50=statistics.median(over),
        over_p99=_quantile(over, 0.99),
    )


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _print(turn: Turn) -> None:
    print(
        f"{turn.clients:3} clients  {turn.target:8} {turn.per_second:7.1f} requests/s  CPU {turn.cpu:.3f} ms  "
        f"{turn.failed} failed  beyond the engine p50 {turn.over_p50:.2f}, p99 {turn.over_p99:.2f} ms",
        flush=True,
    )


def feedback(gateway: Server, folder: Path, labels: int) -> Batches:
    """Labels on answers in the log, in batches."""
    url = f"{gateway.target.url}/v1/feedback"
    answered = _log_answers(folder, labels)
    before, began = gateway.cpu_seconds(), time.perf_counter()
    with httpx.Client(timeout=120) as client:
        for first in range(0, labels, BATCH):
            rows = [{"request_id": each, "label": "Sorry."} for each in answered[first : first + BATCH]]
            reply = client.post(url, json=rows).raise_for_status().json()
            if reply["refused"]:
                raise SystemExit(f"labels were refused: {json.dumps(reply['data'])[:500]}")
    seconds, cpu = time.perf_counter() - began, gateway.cpu_seconds() - before
    return Batches(labels, labels / seconds, 1e6 * cpu / labels)


def _log_answers(folder: Path, count: int) -> list[str]:
    """The ids of so many answers, written to the log directly."""
    from perpetune.prediction_log.database import open_log
    from perpetune.prediction_log.writes import record_rows
    from perpetune.records import Message, Prediction

    asked = (Message(role="user", content=PROMPTS[0]),)
    rows = [
        Prediction(
            id=f"chatcmpl-{number}",
            time=datetime.now(UTC),
            task=TASK,
            version="1",
            messages=asked,
            input=PROMPTS[0],
            output="Sorry.",
            prompt_tokens=20,
            completion_tokens=2,
            latency_ms=1.0,
        )
        for number in range(count)
    ]
    log = open_log(f"sqlite:///{folder / 'predictions.db'}")
    record_rows(log, rows)
    log.dispose()
    return [row.id for row in rows]


def claims_of_requests(turns: Sequence[Turn]) -> list[Claim]:
    claims = []
    for clients in sorted({turn.clients for turn in turns}):
        ours, bare = _of(turns, "gateway", clients), _of(turns, "direct", clients)
        name = f"{clients} clients" if clients > 1 else "1 client"
        claims.append(_claim(f"CPU milliseconds a request, {name}", [turn.cpu for turn in ours], CPU_GOAL_MS))
        for quantile, goal in (("over_p50", P50_GOAL_MS), ("over_p99", P99_GOAL_MS)):
            found = [getattr(turn, quantile) - getattr(other, quantile) for turn, other in zip(ours, bare, strict=True)]
            claims.append(_claim(f"milliseconds added, {quantile.removeprefix('over_')}, {name}", found, goal))
    failed = [float(sum(turn.failed for turn in turns))]
    return [*claims, _claim("requests failed while measuring", failed, 0)]


def claims_beside_peers(turns: Sequence[Turn]) -> list[Claim]:
    """How often a request's CPU time goes into that of a peer, which keeps no log; none of a peer that was not there."""
    claims = []
    for peer, goal in PEER_GOALS.items():
        for clients in sorted({turn.clients for turn in turns if turn.target == peer}):
            pairs = zip(_of(turns, peer, clients), _of(turns, "gateway", clients), strict=True)
            found = [theirs.cpu / ours.cpu for theirs, ours in pairs]
            value = statistics.median(found)
            name = f"CPU of {PEER_NAMES[peer]} over ours, {clients} clients"
            claims.append(Claim(name, value, (min(found), max(found)), goal, value >= goal))
    return claims


def _of(turns: Sequence[Turn], target: str, clients: int) -> list[Turn]:
    return [turn for turn in turns if (turn.target, turn.clients) == (target, clients)]


def _claim(name: str, found: Sequence[float], most: float) -> Claim:
    value = statistics.median(found)
    return Claim(name, value, (min(found), max(found)), most, value <= most)


def claim_of_labels(batches: Batches) -> Claim:
    value = batches.per_second
    return Claim("labels a second, in batches", value, (value, value), LABELS_GOAL, value >= LABELS_GOAL)


if __name__ == "__main__":
    sys.exit(main())

"""Requests that nobody should send, against a gateway in a process of its own.

    python tests/fuzz/fuzz.py --requests 10000                # SQLite as the log
    python tests/fuzz/fuzz.py --requests 10000 --postgresql   # PostgreSQL, if this machine has one
    python tests/fuzz/fuzz.py --seed 7 --only 123             # one hostile request again, with its bytes

Half of the requests are made by schemathesis from the gateway's own description, half are hostile bytes on connections
of their own. It exits 1 after an answer of 5xx, an error in another shape than OpenAI's, a request without an answer, a
traceback in the gateway's log, an answer that is not in the prediction log, or connections that stay open.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from hostile_json import KNOWN_ID, TASK
from hostile_requests import hostile_request
from replies import Reply, fault_of, send
from sqlalchemy import select
from waiting import eventually

from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.tables import predictions

_AT_ONCE = 8
_SPARE_FILES = 20  # that a gateway may have opened since its first request: of the log, the spool, the tokenizer
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class FuzzedGateway:
    """A running gateway, an admin's key, the address of its log, and the file with what it writes to stderr."""

    process: subprocess.Popen[str]
    port: int
    key: str
    log: str
    stderr: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, **more: object) -> httpx.Response:
        body = {"model": TASK, "messages": [{"role": "user", "content": "hello"}], **more}
        head = {"authorization": f"Bearer {self.key}"}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=head, timeout=60)


@dataclass
class Findings:
    """How many requests got which answer, the ids of the answers, and what was wrong."""

    statuses: Counter[int] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def note(self, name: str, reply: Reply, fault: str | None = None) -> None:
        self.statuses[reply.status] += 1
        if found := fault or fault_of(reply):
            self.faults.append(f"{name}: {found}")
        request_id = reply.headers.get("x-request-id", "")
        if reply.status == 200 and request_id.startswith(("chatcmpl-", "cmpl-", "resp")):
            self.answered.add(request_id)


@contextmanager
def fuzzed_gateway(folder: Path, url: str) -> Iterator[FuzzedGateway]:
    """A gateway that has answered once, under an id of the client's that feedback may name."""
    stderr = folder / "stderr"
    command = [sys.executable, str(_HERE / "fuzzed_gateway.py"), str(folder), url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        stderr.open("w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline().split()
            assert len(line) == 2, stderr.read_text()
            gateway = FuzzedGateway(process, int(line[0]), line[1], url, stderr)
            eventually(lambda: httpx.get(f"{gateway.url}/readyz", timeout=60).json().get("trial") == "2")
            assert gateway.ask(metadata={"request_id": KNOWN_ID}).status_code == 200
            yield gateway
        finally:
            process.kill()


def attack(gateway: FuzzedGateway, seed: int, requests: int) -> Findings:
    """Send so many hostile requests, a few at once."""
    findings = Findings()

    def one(number: int) -> None:
        request = hostile_request(seed, number, gateway.key)
        received = send(("127.0.0.1", gateway.port), request)
        name = f"seed {seed}, request {number} ({request.name})"
        if received.fault:
            findings.faults.append(f"{name}: {received.fault}")
        for reply in received.replies:
            findings.note(name, reply)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(one, range(requests)))
    return findings


def after(gateway: FuzzedGateway, findings: Findings, files_before: int) -> list[str]:
    """What is wrong with the gateway after all that."""
    faults = []
    if gateway.process.poll() is not None:
        return [f"the gateway ended with {gateway.process.returncode}: {gateway.stderr.read_text()[-2000:]}"]
    if (reply := gateway.ask()).status_code != 200:
        faults.append(f"the gateway no longer answers: {reply.status_code} {reply.text}")
    faults += [f"{count} tracebacks like {one}" for one, count in tracebacks(gateway.stderr.read_text()).items()]
    if missing := _not_logged(gateway, findings.answered):
        faults.append(f"{len(missing)} answers are not in the log: {sorted(missing)[:5]}")
    state = httpx.get(f"{gateway.url}/readyz", timeout=60).json()["log"]
    if state != "ok":
        faults.append(f"the log is not well: {state}")
    if (files := open_files(gateway)) > files_before + _SPARE_FILES:
        faults.append(f"{files} files and connections are open; before, {files_before} were")
    return faults


def tracebacks(written: str) -> Counter[str]:
    """The ends of the tracebacks in a log, with how often each is there."""
    ends = []
    for one in written.split("Traceback (most recent call last):\n")[1:]:
        lines = one.splitlines()
        last = next((number for number, line in enumerate(lines) if not line.startswith(" ")), len(lines) - 1)
        ends.append("\n".join(lines[max(0, last - 6) : last + 1]))
    return Counter(ends)


def open_files(gateway: FuzzedGateway) -> int:
    return int(psutil.Process(gateway.process.pid).num_fds())


def _not_logged(gateway: FuzzedGateway, answered: set[str]) -> set[str]:
    """Of these answers, those that do not come to the log within seconds. A text of several prompts has one name of many."""
    log = open_log(gateway.log)
    try:
        missing = set(answered)
        deadline = time.monotonic() + 20
        while missing and time.monotonic() < deadline:
            with log.connect() as connection:
                missing -= set(connection.execute(select(predictions.c.id)).scalars())
            time.sleep(0.2 if missing else 0)
        return missing
    finally:
        log.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests that nobody should send, against a gateway.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--only", type=int, help="send this one hostile request, and show it")
    parser.add_argument("--postgresql", action="store_true")
    asked = parser.parse_args()
    from postgres_server import postgres_server

    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name, postgres_server() if asked.postgresql else nullcontext() as postgres:
        url = postgres.url if postgres else f"sqlite:///{Path(name) / 'predictions.db'}"
        with fuzzed_gateway(Path(name), url) as gateway:
            if asked.only is not None:
                _show_one(gateway, asked.seed, asked.only)
                return
            faults = _fuzz(gateway, asked.seed, asked.requests)
    if faults:
        sys.exit(f"{len(faults)} faults")


def _fuzz(gateway: FuzzedGateway, seed: int, requests: int) -> list[str]:
    from described_requests import send_described

    began, files = time.monotonic(), open_files(gateway)
    findings = attack(gateway, seed, requests - requests // 2)
    print(f"{requests - requests // 2} hostile requests in {time.monotonic() - began:.0f} s", flush=True)
    described = send_described(gateway.url, gateway.key, seed, requests // 2, findings.note)
    faults = [*findings.faults, *after(gateway, findings, files)]
    for fault in faults[:40]:
        print(fault, "\n")
    sent = requests - requests // 2
    print(f"{sent} hostile requests, {described} of the description in {time.monotonic() - began:.0f} s")
    print("answers:", json.dumps(dict(sorted(findings.statuses.items()))))
    print(f"answers of a model: {len(findings.answered)}, all in the log" if not faults else f"faults: {len(faults)}")
    return faults


def _show_one(gateway: FuzzedGateway, seed: int, number: int) -> None:
    request = hostile_request(seed, number, gateway.key)
    print(request.name, *(repr(chunk[:3000]) for chunk in request.chunks), sep="\n")
    print(send(("127.0.0.1", gateway.port), request))
    print(gateway.stderr.read_text()[-6000:])


if __name__ == "__main__":
    main()

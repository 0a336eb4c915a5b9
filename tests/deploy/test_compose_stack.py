"""The services of docker-compose.yml run together: their commands, users, environments, mounts and networks, read from it.

PostgreSQL, HAProxy, Prometheus and its prober are Debian's; the S3 store is moto's. Grafana and vLLM are not run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from compose_file import Container, containers
from containers import Host, cannot_run
from waiting import eventually
from workspaces import write_params

ROOT = Path(__file__).parents[2]
FRONT, BACK = "198.18.0", "198.18.1"
OWNER = 1000
POSTGRES = Path("/usr/lib/postgresql/15/bin/postgres")
# What the image of PostgreSQL does before its server starts. https://github.com/docker-library/postgres
INIT_POSTGRES = """
set -e
export PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
if [ ! -s $PGDATA/PG_VERSION ]; then
  initdb --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS > /dev/null
  echo "host all all all scram-sha-256" >> $PGDATA/pg_hba.conf
  pg_ctl --wait --options "-c listen_addresses='' -k /tmp" start > /dev/null
  PGHOST=/tmp /docker-entrypoint-initdb.d/databases.sh
  pg_ctl --wait stop > /dev/null
fi
exec postgres -c listen_addresses='*' -k /tmp
"""


def _reason_to_skip() -> str:
    programs = ("haproxy", "prometheus", "promtool", "prometheus-blackbox-exporter")
    missing = [name for name in programs if shutil.which(name) is None]
    missing += [] if POSTGRES.exists() else ["postgresql-15"]
    missing += [name for name in ("boto3", "moto", "flask_wtf") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else cannot_run()


pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(_reason_to_skip()), reason=_reason_to_skip()),
]


# Without kept connections: each request is balanced again. A client of its own for each would read all certificates first.
CLIENT = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass(frozen=True)
class Stack:
    host: Host
    services: dict[str, Container]
    folder: Path

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    def url(self, service: str, port: int, path: str) -> str:
        [*_, address] = self.host.addresses[service].values()
        return f"http://{address}:{port}{path}"

    def start(self, name: str) -> None:
        self.host.start(self.services[name], STAND_INS.get(name))

    def healthy(self, name: str, seconds: float = 90) -> None:
        """Wait until the service's own health check succeeds."""

        command = HEALTH_CHECKS.get(name, self.services[name].healthcheck)
        deadline = time.monotonic() + seconds
        while (done := self.host.execute(self.services[name], command)).returncode != 0:
            ended = self.host.running[name].poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{name} is not healthy: {done.stderr} {self.host.log(name)[-3000:]}")
            time.sleep(0.5)

    def done(self, name: str) -> None:
        """Run a service that ends."""
        self.start(name)
        assert self.host.running[name].wait(timeout=90) == 0, self.host.log(name)[-3000:]

    def run(self, name: str, *words: str, folder: str = "/workspace") -> None:
        """`docker compose run --rm --workdir FOLDER NAME WORDS`."""
        service = replace(self.services[name], folder=folder)
        process = self.host.start(service, (*service.command, *words))
        assert process.wait(timeout=120) == 0, self.host.log(name)[-3000:]

    def stop(self, name: str) -> None:
        process = self.host.running[name]
        os.kill(process.pid, signal.SIGTERM)
        if name == "postgres":
            os.kill(process.pid, signal.SIGINT)  # fast: it waits for its clients otherwise
        process.wait(timeout=90)

    def ask(self, text: str, model: str = "colours", **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        headers = {"authorization": f"Bearer {self.secret('perpetune_api_key')}"}
        return CLIENT.post(self.url("proxy", 8000, "/v1/chat/completions"), json=body, headers=headers)

    def sql(self, database: str, query: str) -> str:
        """The rows of a query, asked by the service's own role with its own password over the network."""
        variables = {**os.environ, "PGPASSWORD": self.secret(f"{database}_db_password"), "PGCONNECT_TIMEOUT": "5"}
        address = self.host.addresses["postgres"]["back"]
        words = ["psql", "-h", address, "-U", database, "-d", database, "-XAtc", query]
        done = subprocess.run(words, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


# Programs that are not on this machine, or bear another name.
STAND_INS = {
    "postgres": ("sh", "-c", INIT_POSTGRES),
    "s3": ("moto_server", "-H", "0.0.0.0", "-p", "8333"),
    "blackbox": ("prometheus-blackbox-exporter", "--config.file=/etc/blackbox/blackbox.yml"),
}
HEALTH_CHECKS = {"s3": ("python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8333))")}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Stack]:
    base = tmp_path_factory.mktemp("host")
    for path in (base, *base.parents):  # the users of the containers pass through it to nothing else
        if path != Path("/tmp") and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    folder = _workspace(base / "perpetune", tiny_folder)
    variables = {
        "PERPETUNE_UID": str(OWNER),
        "PERPETUNE_GID": str(OWNER),
        "PERPETUNE_FRONT": FRONT,
        "PERPETUNE_BACK": BACK,
    }
    services = containers(variables, _second_task(folder))
    with ExitStack() as cleanup:
        host = Host(folder, base / "volumes", {"front": FRONT, "back": BACK}, cleanup)
        for name in services:
            host.connect(services[name])
        host.start_names()
        cleanup.enter_context(host.inside())
        yield _started(Stack(host, services, folder))


def _workspace(folder: Path, model: Path) -> Path:
    """A checkout as Compose mounts it, with a workspace whose model is tiny, owned by a user that is not root."""
    folder.mkdir()
    for name in ("perpetune", "prefect", "mlflow"):  # its code is never that of the image
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the checkout was imported')\n")
    for name in ("docker-compose.yml", ".env.example"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(model, folder / "model")
    (folder / "assets").mkdir()
    write_params(
        folder,
        task={"name": "colours", "instruction": "which colour is it ?", "labels": ["red", "green", "blue"]},
        base={"model": "path:/workspace/model", "revision": None},
        fetch={"sources": ["inbox", "traffic"]},
    )
    (folder / "workspaces/shapes").mkdir(parents=True)
    write_params(
        folder / "workspaces/shapes",
        task={"name": "shapes", "instruction": "which shape is it ?", "labels": ["round", "square"]},
        base={"model": "path:/workspace/model", "revision": None},
    )
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OWNER, OWNER)
    subprocess.run(["sh", str(folder / "deploy/compose/prepare.sh")], check=True)
    return folder


def _second_task(folder: Path) -> Path:
    """compose.override.yml as docs/guides/several-tasks.md has it, for the task `shapes`."""
    page = (ROOT / "docs/guides/several-tasks.md").read_text()
    [written] = re.findall(r"^    services:\n(?:      .*\n)+", page, re.MULTILINE)
    (folder / "compose.override.yml").write_text(textwrap.dedent(written).replace("intents", "shapes"))
    return folder / "compose.override.yml"


def _started(stack: Stack) -> Stack:
    """In the order of `depends_on`."""
    stack.start("postgres")
    stack.start("s3")
    stack.start("blackbox")
    stack.healthy("postgres")
    stack.healthy("s3")
    stack.start("prefect")
    stack.done("bucket")
    stack.start("mlflow")
    stack.done("keys")
    stack.healthy("mlflow")
    stack.healthy("prefect")
    for name in ("worker", "worker-shapes", "prometheus"):
        stack.start(name)
    stack.healthy("worker")
    added = stack.host.execute(stack.services["worker"], ("perpetune", "serve", "add", "workspaces/shapes"))
    assert added.returncode == 0, added.stderr
    for name in ("gateway-1", "gateway-2", "proxy"):
        stack.start(name)
    for name in ("gateway-1", "gateway-2", "proxy", "prometheus", "blackbox", "worker-shapes"):
        stack.healthy(name)
    eventually(lambda: _up(stack) == ["UP", "UP"], seconds=120)
    return stack


def _up(stack: Stack) -> list[str]:
    """The state of both gateways as the proxy sees them."""
    lines = httpx.get(stack.url("proxy", 8405, "/metrics")).text.splitlines()
    found = [
        line for line in lines if line.startswith('haproxy_server_status{proxy="gateways"') and line.endswith(" 1")
    ]
    return sorted(line.split('state="')[1].split('"')[0] for line in found)


def test_no_service_is_root_or_has_a_capability(stack: Stack) -> None:
    for name, process in stack.host.running.items():
        if process.poll() is None:
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                if ":\t" in line
            )
            assert status["Uid"].split()[0] == str(stack.services[name].user[0]) != "0", name
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, name


def test_no_secret_is_in_the_configuration(stack: Stack) -> None:
    known = {path.name: path.read_text().strip() for path in (stack.folder / "secrets").iterdir()}
    shown = repr([(service.command, service.environment) for service in stack.services.values()])
    assert not [name for name, secret in known.items() if secret in shown]


def test_version_1_answers_through_the_proxy_with_its_artifacts_in_the_s3_store(stack: Stack) -> None:
    reply = stack.ask("the sky")
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] in {"red", "green", "blue"}
    listed = httpx.get(stack.url("s3", 8333, "/mlflow?list-type=2")).text
    assert "<Key>" in listed and "MLmodel" in listed
    assert stack.sql("mlflow", "select count(*) from registered_models where name = 'colours'") == "1"
    eventually(lambda: int(stack.sql("perpetune", "select count(*) from predictions")))


def test_a_second_task_is_answered_by_the_same_gateways_and_has_its_own_worker(stack: Stack) -> None:
    reply = stack.ask("it has four corners", model="shapes")
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] in {"round", "square"}
    user, password = stack.secret("prefect_auth").split(":")
    found = httpx.get(
        stack.url("prefect", 4200, "/api/deployments/name/watch/shapes"),
        auth=(user, password),
        headers={"host": "prefect:4200"},
    )
    assert found.json()["tags"] == ["perpetune", "shapes"]


def test_each_service_wants_its_password(stack: Stack) -> None:
    chat = stack.url("proxy", 8000, "/v1/chat/completions")
    assert httpx.post(chat, json={}).status_code == 401
    assert httpx.get(stack.url("prefect", 4200, "/api/health"), headers={"host": "prefect:4200"}).status_code == 200
    flows = stack.url("prefect", 4200, "/api/flows/filter")
    user, password = stack.secret("prefect_auth").split(":")
    host = {"host": "prefect:4200"}
    assert httpx.post(flows, json={}, headers=host).status_code == 401
    assert httpx.post(flows, json={}, headers=host, auth=(user, password)).status_code == 200
    search = stack.url("mlflow", 5000, "/api/2.0/mlflow/registered-models/search")
    host = {"host": "mlflow:5000"}
    assert httpx.get(search, headers=host).status_code == 401
    assert httpx.get(search, headers=host, auth=("admin", stack.secret("mlflow_password"))).status_code == 200
    assert stack.sql("perpetune", "select 1") == "1"
    with pytest.raises(AssertionError, match="permission denied for database"):
        _as_other_role(stack)


def _as_other_role(stack: Stack) -> None:
    variables = {**os.environ, "PGPASSWORD": stack.secret("prefect_db_password")}
    address = stack.host.addresses["postgres"]["back"]
    words = ["psql", "-h", address, "-U", "prefect", "-d", "perpetune", "-XAtc", "select 1"]
    done = subprocess.run(words, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_in_a_container_has_its_secrets(stack: Stack) -> None:
    """`docker compose exec worker perpetune ...`, which does not go through the entrypoint."""
    for words in (["keys", "add", "shop", "--role", "ask"], ["status"], ["audit", "verify"]):
        done = stack.host.execute(stack.services["worker"], ("perpetune", *words))
        assert done.returncode == 0, (words, done.stdout, done.stderr)


def test_the_proxy_keeps_the_metrics_in_and_names_the_client(stack: Stack) -> None:
    assert httpx.get(stack.url("proxy", 8000, "/metrics")).status_code == 404
    assert "perpetune_build_info" in httpx.get(stack.url("gateway-1", 8000, "/metrics")).text


def test_the_worker_runs_a_check_that_prefect_started(stack: Stack) -> None:
    user, password = stack.secret("prefect_auth").split(":")
    with httpx.Client(
        base_url=stack.url("prefect", 4200, "/api"), auth=(user, password), headers={"host": "prefect:4200"}, timeout=30
    ) as prefect:
        found = eventually(lambda: prefect.get("/deployments/name/watch/colours"), seconds=30)
        deployment = found.json()["id"]
        run = prefect.post(f"/deployments/{deployment}/create_flow_run", json={}).json()["id"]

        def ended() -> dict[str, Any] | None:
            state: dict[str, Any] = prefect.get(f"/flow_runs/{run}").json()["state"]
            return state if state["type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

        state = eventually(ended, seconds=180, every=1)
    assert state is not None and state["type"] == "COMPLETED", f"{state} {stack.host.log('worker')[-4000:]}"


def test_prometheus_watches_everything_that_runs(stack: Stack) -> None:
    query = stack.url("prometheus", 9090, "/api/v1/query")

    def values(expression: str) -> dict[str, str]:
        found = httpx.get(query, params={"query": expression}).json()["data"]["result"]
        return {each["metric"].get("instance", ""): each["value"][1] for each in found}

    watched = {"http://mlflow:5000/health", "http://prefect:4200/api/health", "http://worker:4201/health"}
    wanted = dict.fromkeys([*watched, "postgres:5432", "s3:8333"], "1")
    assert eventually(lambda: values("probe_success") == wanted and wanted, seconds=60)
    scraped = {"gateway-1:8000": "1", "gateway-2:8000": "1"}
    assert eventually(lambda: values('up{job="gateway"}') == scraped and scraped, seconds=60)
    assert eventually(lambda: values('up{job="proxy"}') == {"proxy:8405": "1"} and True, seconds=60)
    shown = httpx.get(stack.url("proxy", 8405, "/metrics")).text
    dashboard = (ROOT / "deploy/grafana/dashboards/services.json").read_text()
    assert all(f"{name}{{" in shown for name in set(re.findall(r"haproxy_\w+", dashboard)))
    rules = httpx.get(stack.url("prometheus", 9090, "/api/v1/rules")).json()["data"]["groups"]
    assert {group["name"] for group in rules} == {"gateway", "services"}
    assert all(rule["health"] == "ok" for group in rules for rule in group["rules"])


def test_a_gateway_restarts_without_a_failed_request(stack: Stack) -> None:
    statuses: list[int] = []
    stopped = threading.Event()

    def keep_asking() -> None:
        while not stopped.is_set():
            statuses.append(stack.ask("the sea").status_code)
            time.sleep(0.1)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        process = stack.host.running["gateway-1"]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=80) == 0, stack.host.log("gateway-1")[-2000:]
        stack.start("gateway-1")
        stack.healthy("gateway-1")
        eventually(lambda: _up(stack) == ["UP", "UP"], seconds=60)
    finally:
        stopped.set()
        thread.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_what_was_stored_is_there_after_the_database_restarts(stack: Stack) -> None:
    before = eventually(lambda: int(stack.sql("perpetune", "select count(*) from predictions")))
    stack.stop("postgres")
    assert stack.ask("the grass").status_code == 200  # it is kept on disk until then
    stack.start("postgres")
    stack.healthy("postgres")
    assert eventually(lambda: int(stack.sql("perpetune", "select count(*) from predictions")) > before, seconds=60)


def test_requests_are_answered_when_a_gateway_is_killed(stack: Stack) -> None:
    process = stack.host.running["gateway-2"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [stack.ask("the leaf").status_code for _ in range(10)] == [200] * 10


def test_a_backup_is_restored_into_nothing(stack: Stack) -> None:
    """The last test: as on a new machine, with the folder secrets/ and the objects of the S3 store."""
    eventually(lambda: int(stack.sql("perpetune", "select count(*) from predictions")))
    shapes = "/workspace/workspaces/shapes"
    stack.run("backup", "create", "/backups/colours")
    stack.run("backup", "create", "/backups/shapes", "--files-only", folder=shapes)
    counted = {
        (database, table): stack.sql(database, f"select count(*) from {table}")
        for database, table in (("perpetune", "audit"), ("mlflow", "model_versions"), ("prefect", "flow_run"))
    }
    assert all(int(count) for count in counted.values()), counted
    for name in ("gateway-1", "gateway-2", "worker", "worker-shapes", "mlflow", "prefect", "postgres"):
        if stack.host.running[name].poll() is None:
            stack.stop(name)
    for name in (".perpetune", "data", "workspaces", ".dvc"):
        shutil.rmtree(stack.folder / name, ignore_errors=True)
    for file in ("params.yaml", "dvc.yaml"):
        (stack.folder / file).unlink(missing_ok=True)
    shutil.rmtree(stack.host.volumes / "postgres")

    stack.start("postgres")
    stack.healthy("postgres")
    stack.run("backup", "restore", "/backups/shapes", "--folder", "workspaces/shapes")
    stack.run("backup", "restore", "/backups/colours", "--folder", "restored")
    subprocess.run("cp -a restored/. . && rm -r restored", shell=True, cwd=stack.folder, check=True)
    assert {key: stack.sql(key[0], f"select count(*) from {key[1]}") for key in counted} == counted
    for name in ("mlflow", "prefect"):
        stack.start(name)
        stack.healthy(name)
    stack.start("gateway-1")
    stack.healthy("gateway-1")
    for model in ("colours", "shapes"):
        eventually(lambda: stack.ask("the sky", model=model).status_code == 200, seconds=120)  # noqa: B023
    done = stack.host.execute(stack.services["gateway-1"], ("perpetune", "audit", "verify"))
    assert "the audit log is intact" in done.stdout

"""Containers without Docker: each service of docker-compose.yml in namespaces of its own.

A service gets its own network (a cable to each of its networks, names by DNS), a copy-on-write root with its mounts and
secrets at their paths, its user without capabilities, and no environment but its own. What is missing beside Docker is
the image: the programs are those of this machine.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from compose_file import ROOT, Container, copies, path_of

_NEW_NETWORK = 0x40000000
_PATH = ":".join(
    dict.fromkeys([str(Path(sys.executable).parent), str(ROOT / ".venv/bin"), "/usr/lib/postgresql/15/bin"])
)
_MISSING = [name for name in ("ip", "nsenter", "setpriv", "unshare") if shutil.which(name) is None]


def cannot_run() -> str:
    """Why this machine cannot run containers; empty if it can."""
    if _MISSING:
        return f"needs {', '.join(_MISSING)} (util-linux, iproute2)"
    if os.geteuid() != 0:
        return "needs root, for namespaces"
    tried = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "this machine allows no namespaces"


@dataclass
class Host:
    """A machine with Docker's networks. `folder` is where docker-compose.yml would be; volumes are in `volumes`."""

    folder: Path
    volumes: Path
    subnets: Mapping[str, str]  # the first three numbers of each network
    stack: ExitStack
    addresses: dict[str, dict[str, str]] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark = f"ppt{os.getpid()}"
        self._add_network_namespace(self.switch)
        for name, subnet in self.subnets.items():
            self._ip(self.switch, f"link add {name} type bridge")
            self._ip(self.switch, f"addr add {subnet}.1/24 dev {name}")
            self._ip(self.switch, f"link set {name} up")

    @property
    def switch(self) -> str:
        """The namespace in which all networks meet."""
        return f"{self.mark}-switch"

    def connect(self, container: Container) -> None:
        """Give a container its network, so that others can find its name."""
        space = f"{self.mark}-{container.name}"
        self._add_network_namespace(space)
        self.addresses[container.name] = {}
        for network, fixed in container.networks.items():
            address = fixed or f"{self.subnets[network]}.{20 + len(self.addresses)}"
            cable = f"{len(self.addresses)}{network}"
            self._ip(self.switch, f"link add {cable} type veth peer name {network} netns {space}")
            self._ip(self.switch, f"link set {cable} master {network} up")
            self._ip(space, f"addr add {address}/24 dev {network}")
            self._ip(space, f"link set {network} up")
            self.addresses[container.name][network] = address

    def start_names(self) -> None:
        """Answer DNS for the names of all connected containers, as Docker does."""
        names = {name: next(iter(reversed(found.values()))) for name, found in self.addresses.items()}
        listen = [f"{subnet}.1" for subnet in self.subnets.values()]
        script = Path(__file__).with_name("name_server.py")
        words = [sys.executable, str(script), ",".join(listen), *(f"{name}={at}" for name, at in names.items())]
        process = subprocess.Popen([*_enter(self.switch), *words], start_new_session=True)
        self.stack.callback(_end, process)

    def start(self, container: Container, command: tuple[str, ...] | None = None) -> subprocess.Popen[bytes]:
        """Start a container; `command` is for images whose own program is not on this machine."""
        script = self._script(container, command or container.command)
        log = (self.folder.parent / f"{container.name}.log").open("ab")
        process = subprocess.Popen(
            [*_enter(f"{self.mark}-{container.name}"), "unshare", "--mount", "--propagation", "private", "sh", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.running[container.name] = process
        self.stack.callback(_end, process)
        return process

    def execute(self, container: Container, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """`docker exec`: run a command in a running container, as its user and in its environment."""
        process = self.running[container.name]
        inside = ["nsenter", "--target", str(process.pid), "--mount", "--net", "--root"]
        words = [*inside, "env", "--chdir", container.folder, *_as_user(container), *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def log(self, name: str) -> str:
        return (self.folder.parent / f"{name}.log").read_text(errors="replace")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and what it starts, is on the containers' networks while the block runs."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as own, Path(f"/run/netns/{self.switch}").open() as there:
            if libc.setns(there.fileno(), _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "cannot enter the network")
            try:
                yield
            finally:
                libc.setns(own.fileno(), _NEW_NETWORK)

    def _script(self, container: Container, command: tuple[str, ...]) -> str:
        """The script that makes the root of the container and ends as its process."""
        base = self.folder.parent / "roots" / container.name
        base.mkdir(parents=True, exist_ok=True)
        root = f"{base}/root"
        name_server = f"{self.subnets[next(iter(container.networks))]}.1"
        user, group = container.user
        lines = [
            "set -e",
            f"mount -t tmpfs -o mode=755 none {base}",
            f"mkdir {base}/upper {base}/work {root}",
            f"mount -t overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work none {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs -o mode=755 none {root}/run",
            f"mount -t tmpfs -o mode=1777 none {root}/tmp",
            f"rm -f {root}/etc/resolv.conf",
            f"echo nameserver {name_server} > {root}/etc/resolv.conf",
            f"printf '127.0.0.1 localhost\\n' > {root}/etc/hosts",
            f"echo service:x:{user}:{group}::/:/bin/sh >> {root}/etc/passwd",
            *(
                line
                for source, target, read_only in self._binds(container)
                for line in _bind(source, root + target, read_only)
            ),
            *(f"chmod o+x {root}{folder}" for folder in _folders_of_python()),  # a copy: only this root has it
            f"mkdir -p {root}{container.folder}",
            f"exec chroot {root} env --chdir {container.folder} {shlex.join([*_as_user(container), *command])}",
        ]
        script = base.with_suffix(".sh")
        script.write_text("\n".join(lines) + "\n")
        return str(script)

    def _binds(self, container: Container) -> Iterator[tuple[Path, str, bool]]:
        yield Path(sys.prefix), sys.prefix, True  # it may be below /tmp
        if container.dockerfile is not None:
            yield from _image(container.dockerfile, self.folder.parent / "images")
        for mount in container.mounts:
            source = self.volumes / mount.source if mount.is_volume else self.folder / mount.source
            if mount.is_volume and not source.exists():  # a new volume is a copy of the folder in the image
                source.mkdir(parents=True)
                os.chown(source, *container.user)
            yield source, mount.target, mount.read_only

    def _add_network_namespace(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
        self._ip(name, "link set lo up")

    def _ip(self, space: str, words: str) -> None:
        subprocess.run(["ip", "-netns", space, *words.split()], check=True)


def _image(dockerfile: Path, folder: Path) -> Iterator[tuple[Path, str, bool]]:
    """What the Dockerfile copies, at its place in the image."""
    place, built = "/", folder / dockerfile.parent.name
    for line in dockerfile.read_text().splitlines():
        if line.startswith("WORKDIR ") and place == "/":
            place = line.removeprefix("WORKDIR ").strip()
    if not built.exists():
        built.mkdir(parents=True)
        for sources, target in copies(dockerfile):
            for source in sources:
                into = built / (Path(source).name if target.endswith("/") else target)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, into)
        built.chmod(0o755)
        subprocess.run([sys.executable, "-m", "compileall", "-q", "-q", str(built)], check=True)  # as pip does
    yield built, place, True


def _folders_of_python() -> list[Path]:
    """The folders through which a user reaches the interpreter."""
    files = (Path(sys.executable), Path(sys.executable).resolve())
    folders = {folder for file in files for folder in file.parents if folder != Path("/")}
    return sorted(folder for folder in folders if not folder.is_relative_to(sys.prefix))


def _bind(source: Path, target: str, read_only: bool) -> Iterator[str]:
    yield f"mkdir -p {target}" if source.is_dir() else f"mkdir -p {Path(target).parent} && touch {target}"
    yield f"mount --bind {source} {target}"
    if read_only:
        yield f"mount -o remount,bind,ro {target}"


def _as_user(container: Container) -> list[str]:
    user, group = container.user
    dropped = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    image = {"PATH": f"{_PATH}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    if container.dockerfile is not None:
        image["PATH"] = path_of(container.dockerfile, image["PATH"])
        image["PYTHONPATH"] = "/opt/perpetune"  # as if it was installed there
    variables = {**image, **container.environment}
    return [
        *("setpriv", f"--reuid={user}", f"--regid={group}", *dropped),
        *("env", "--ignore-environment", *(f"{name}={value}" for name, value in variables.items())),
    ]


def _enter(space: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{space}"]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a container with all of its processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

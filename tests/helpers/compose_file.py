"""docker-compose.yml as Docker Compose reads it: variables replaced, and each service with what its Dockerfile adds."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
_REPLACED = {"command", "entrypoint", "test"}
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<default>[^}]*))?\}")


@dataclass(frozen=True)
class Mount:
    source: str  # a path, or the name of a volume
    target: str
    read_only: bool

    @property
    def is_volume(self) -> bool:
        return "/" not in self.source and self.source != "."


@dataclass(frozen=True)
class Container:
    """What Docker would run."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    user: tuple[int, int]
    folder: str
    mounts: tuple[Mount, ...]
    networks: Mapping[str, str | None]  # by name, with the address if it is fixed
    healthcheck: tuple[str, ...]
    dockerfile: Path | None


def read_compose(environment: Mapping[str, str], *more: Path) -> dict[str, Any]:
    """The file, and what `more` files change in it, with `environment` as .env.

    Raises KeyError for a variable that is required and not set.
    """
    found: dict[str, Any] = {}
    for file in (FILE, *more):
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = _merged(found, _interpolated(read, environment))
    services = found["services"]
    for name, service in services.items():
        if extended := service.pop("extends", None):
            services[name] = _merged(services[extended["service"]], service)
    return found


def _merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """As Compose merges files: maps by key, lists one after the other, commands and tests replaced."""
    merged = dict(before)
    for name, value in after.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[name] = _merged(old, value)
        elif isinstance(old, list) and isinstance(value, list) and name not in _REPLACED:
            merged[name] = [*old, *value]
        else:
            merged[name] = value
    return merged


def containers(environment: Mapping[str, str], *more: Path) -> dict[str, Container]:
    compose = read_compose(environment, *more)
    return {name: _container(name, service, compose) for name, service in compose["services"].items()}


def _container(name: str, service: Mapping[str, Any], compose: Mapping[str, Any]) -> Container:
    build = service.get("build")
    dockerfile = ROOT / build["dockerfile"] if build else None
    mounts = [_mount(text) for text in service.get("volumes", ())]
    for secret in service.get("secrets", ()):
        mounts.append(Mount(compose["secrets"][secret]["file"], f"/run/secrets/{secret}", read_only=True))
    networks = service["networks"]
    user, group = service["user"].split(":")
    return Container(
        name=name,
        command=(*_entrypoint(service, dockerfile), *_words(service.get("command", ()))),
        environment={key: str(value) for key, value in service.get("environment", {}).items()},
        user=(int(user), int(group)),
        folder=service.get("working_dir", "/"),
        mounts=tuple(mounts),
        networks={
            each: (networks[each] if isinstance(networks, dict) else {}).get("ipv4_address") for each in networks
        },
        healthcheck=_healthcheck(service.get("healthcheck", {}).get("test", ())),
        dockerfile=dockerfile,
    )


def _entrypoint(service: Mapping[str, Any], dockerfile: Path | None) -> tuple[str, ...]:
    if "entrypoint" in service:
        return _words(service["entrypoint"])
    lines = dockerfile.read_text().splitlines() if dockerfile else []
    named = [line.removeprefix("ENTRYPOINT ") for line in lines if line.startswith("ENTRYPOINT ")]
    return tuple(json.loads(named[-1])) if named else ()


def _healthcheck(test: Any) -> tuple[str, ...]:
    if not test:
        return ()
    kind, *words = test
    return ("sh", "-c", *words) if kind == "CMD-SHELL" else tuple(words)


def _words(command: Any) -> tuple[str, ...]:
    return tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)


def _mount(text: str) -> Mount:
    source, target, *options = text.split(":")
    return Mount(source, target, read_only="ro" in options)


def _interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(each, environment) for key, each in value.items()}
    if isinstance(value, list):
        return [_interpolated(each, environment) for each in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _value(found, environment), value)
    return value


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    name = found["name"]
    if name is None:
        return "$"
    if environment.get(name):
        return environment[name]
    if found["kind"] == "?":
        raise KeyError(f"{name}: {found['default']}")
    return found["default"] or ""


def copies(dockerfile: Path) -> Iterator[tuple[list[str], str]]:
    """The sources and the target of each COPY and ADD from the context."""
    for line in dockerfile.read_text().replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.upper() not in ("COPY", "ADD"):
            continue
        words = json.loads(rest) if rest.lstrip().startswith("[") else shlex.split(rest)
        if any(word.startswith("--from=") for word in words):
            continue
        *sources, target = [word for word in words if not word.startswith("--")]
        yield sources, target


def path_of(dockerfile: Path, path: str) -> str:
    """PATH in the image whose base has `path`."""
    for found in re.findall(r'^ENV PATH="(.*)"$', dockerfile.read_text(), re.MULTILINE):
        path = found.replace("${PATH}", path)
    return path

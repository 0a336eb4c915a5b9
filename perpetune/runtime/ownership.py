"""Asking services which workspace they belong to, before anything is started, promoted or rolled back there.

An address outlives its service: after a crash the port may belong to the `perpetune up` of another workspace, and a
terminal may still have the variables of another workspace's services.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from perpetune.errors import PerpetuneError
from perpetune.proxies import is_on_this_machine
from perpetune.runtime.addresses import WORKSPACE_ID, Addresses, workspace_id
from perpetune.settings import Settings

HEADER = "x-perpetune-workspace"  # of every answer of the Prefect server that `perpetune up` starts
TAG = "perpetune.workspace"  # of MLflow's default experiment, which every store has
_DEFAULT_EXPERIMENT = "0"
_SECONDS = 3.0


def mark_mlflow(url: str, workspace: str) -> bool:
    """Write the workspace's id into the MLflow server that it has started; False if the server does not take it."""
    body = {"experiment_id": _DEFAULT_EXPERIMENT, "key": TAG, "value": workspace}
    with _client() as client:
        answer = client.post(f"{url}/api/2.0/mlflow/experiments/set-experiment-tag", json=body)
    return answer.is_success


def require_own(addresses: Addresses) -> None:
    """Raises PerpetuneError if another workspace's service answers at an address that `perpetune up` started here.

    A service that does not answer is no error yet: whoever needs it says so.
    """
    names = sorted(addresses.started & _QUESTIONS.keys())
    urls = [addresses.variables[_QUESTIONS[name][0]] for name in names]
    for name, url, answer in zip(names, urls, _asked([_QUESTIONS[name][1] for name in names], urls), strict=True):
        if answer is None:
            continue
        owner = answer.owner
        if owner != addresses.variables[WORKSPACE_ID]:
            raise PerpetuneError(
                f"the {name} of this workspace has ended, and {_described(owner)} answers at its address",
                where=url,
                do="stop `perpetune up` here and start it again: it takes ports that are free",
            )


def require_not_foreign(settings: Settings, home: Path) -> None:
    """Raises PerpetuneError if an address of the environment is that of another workspace's service on this machine.

    A service that belongs to no workspace, such as a shared MLflow, is anybody's.
    """
    named = ((settings.mlflow_tracking_uri, _owner_of_mlflow), (settings.prefect_api_url, _owner_of_prefect))
    here = [(url.rstrip("/"), ask) for url, ask in named if url is not None and is_on_this_machine(url)]
    urls = [url for url, _ in here]
    for url, answer in zip(urls, _asked([ask for _, ask in here], urls), strict=True):
        if answer is None:
            continue
        owner = answer.owner
        if owner not in (None, own_id(settings, home)):
            raise PerpetuneError(
                "this service belongs to another workspace",
                where=url,
                do="unset MLFLOW_TRACKING_URI and PREFECT_API_URL, or set PERPETUNE_WORKSPACE_ID="
                f"{owner} if you mean that one",
            )


@dataclass(frozen=True)
class _Answer:
    owner: str | None


def _asked(questions: Sequence[Callable[[str], str | None]], urls: Sequence[str]) -> list[_Answer | None]:
    """What each service answers, None for one that does not; all at once, because one that hangs takes `_SECONDS`."""

    def ask(question: Callable[[str], str | None], url: str) -> _Answer | None:
        try:
            return _Answer(question(url))
        except httpx.HTTPError:
            return None

    with ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
        return list(pool.map(ask, questions, urls))


def own_id(settings: Settings, home: Path) -> str:
    """The id of this workspace: that of the environment, else that of its home."""
    return settings.workspace_id or workspace_id(home)


def _described(owner: str | None) -> str:
    return "a server of another kind" if owner is None else "that of another workspace"


def _owner_of_prefect(url: str) -> str | None:
    with _client() as client:
        owner = client.get(f"{url}/health").headers.get(HEADER)
    return None if owner is None else str(owner)


def _owner_of_mlflow(url: str) -> str | None:
    with _client() as client:
        answer = client.get(f"{url}/api/2.0/mlflow/experiments/get", params={"experiment_id": _DEFAULT_EXPERIMENT})
    tags = _mapping(_mapping(answer).get("experiment")).get("tags")
    found = {str(tag.get("key")): str(tag.get("value")) for tag in (tags if isinstance(tags, list) else [])}
    return found.get(TAG)


def _owner_of_gateway(url: str) -> str | None:
    with _client() as client:
        owner = _mapping(client.get(f"{url}/readyz")).get("workspace")
    return None if owner is None else str(owner)


_QUESTIONS: Mapping[str, tuple[str, Callable[[str], str | None]]] = {
    "prefect": ("PREFECT_API_URL", _owner_of_prefect),
    "mlflow": ("MLFLOW_TRACKING_URI", _owner_of_mlflow),
    "gateway": ("PERPETUNE_GATEWAY_URL", _owner_of_gateway),
}


def _client() -> httpx.Client:
    return httpx.Client(timeout=_SECONDS, trust_env=False)  # services of this machine: no proxy is asked


def _mapping(found: object) -> Mapping[str, object]:
    """A JSON object; {} for anything else, which a server of another kind may send."""
    if isinstance(found, httpx.Response):
        try:
            found = found.json()
        except ValueError:
            return {}
    return found if isinstance(found, Mapping) else {}

"""A Label Studio server, by its REST API: https://api.labelstud.io/"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from perpetune.errors import PerpetuneError

URL_VARIABLE, KEY_VARIABLE = "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"
_PATIENCE = httpx.Timeout(120.0, connect=10.0)  # seconds
_PAGE = 500  # tasks of one request
_AT_ONCE = 250  # tasks of one import


@dataclass(frozen=True)
class Project:
    id: int
    title: str
    url: str
    label_config: str

    def task_url(self, task: Mapping[str, Any]) -> str:
        """Where people open the task."""
        return f"{self.url}/data?task={task['id']}"


class LabelStudio:
    """Calls of one server. They raise PerpetuneError if it does not answer or refuses."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @property
    def address(self) -> str:
        return str(self._client.base_url).rstrip("/")

    def project(self, title: str) -> Project | None:
        """The project with this title."""
        return next((found for found in self.projects() if found.title == title), None)

    def projects(self) -> Iterator[Project]:
        """All projects that the user sees."""
        yield from map(self._project, self._pages("/api/projects/", {"page_size": 100}))

    def fields(self, project: Project) -> frozenset[str]:
        """The names of the data that tasks of the project have."""
        found = self._json("GET", f"/api/projects/{project.id}/summary/")
        return frozenset(found.get("all_data_columns") or ())

    def create(self, title: str, label_config: str, annotators: int) -> Project:
        """A new project, in which each task is annotated by so many people."""
        body = {"title": title, "label_config": label_config, "maximum_annotations": annotators}
        return self._project(self._json("POST", "/api/projects/", json=body))

    def change(self, project: Project, changes: Mapping[str, object]) -> None:
        """Change settings of the project. Refused if annotations have labels that a new configuration lacks."""
        self._json("PATCH", f"/api/projects/{project.id}/", json=dict(changes))

    def tasks(self, project: Project, *, whole: bool = False) -> Iterator[dict[str, Any]]:
        """The tasks; if `whole`, with their annotations, drafts and predictions."""
        page = 1
        while True:
            asked = {"project": project.id, "page": page, "page_size": _PAGE} | ({"fields": "all"} if whole else {})
            found = self._json("GET", "/api/tasks/", params=asked)
            yield from found["tasks"]
            if page * _PAGE >= found["total"] or not found["tasks"]:
                return
            page += 1

    def add(self, project: Project, tasks: Sequence[Mapping[str, Any]]) -> int:
        """Import tasks with their predictions; returns how many."""
        path = f"/api/projects/{project.id}/import"
        parts = (tasks[start : start + _AT_ONCE] for start in range(0, len(tasks), _AT_ONCE))
        return sum(int(self._json("POST", path, json=list(part))["task_count"]) for part in parts)

    def annotated(self, project: Project) -> list[dict[str, Any]]:
        """The tasks that somebody has annotated, with the annotations.

        They are read one page at a time: an export would leave a copy on the server's disk, which no erasure can reach.
        """
        return [task for task in self.tasks(project, whole=True) if task.get("annotations")]

    def delete(self, task: Mapping[str, Any]) -> None:
        """Delete a task with its annotations, drafts and predictions. One that is gone is no fault."""
        path = f"/api/tasks/{task['id']}/"
        response = _responded(self._client, "DELETE", path)
        if response.is_error and response.status_code != 404:
            raise _refused(response, self.address)

    def kept_exports(self, project: Project) -> list[str]:
        """The names of exports that the server keeps on its disk; they hold whole tasks."""
        found = self._json("GET", f"/api/projects/{project.id}/export/files")
        return [f"{each['name']}.json" for each in found["export_files"]]

    def people(self) -> dict[int, str]:
        """The e-mail address of each user."""
        return {user["id"]: user["email"] or user["username"] for user in self._json("GET", "/api/users/")}

    def _project(self, found: Mapping[str, Any]) -> Project:
        return Project(found["id"], found["title"], f"{self.address}/projects/{found['id']}", found["label_config"])

    def _pages(self, path: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        page: dict[str, Any] = self._json("GET", path, params=params)
        yield from page["results"]
        number = 1
        while page["next"]:
            number += 1
            page = self._json("GET", path, params={**params, "page": number})
            yield from page["results"]

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return _answered(self._client, method, path, **options)


@contextmanager
def label_studio(url: str, key: str) -> Iterator[LabelStudio]:
    """The server at this address. `key` is a personal access token or a legacy token. Raises PerpetuneError."""
    address = url.rstrip("/")
    with httpx.Client(base_url=address, auth=TokenAuth(address, key.strip()), timeout=_PATIENCE) as client:
        client.follow_redirects = True
        yield LabelStudio(client)


class TokenAuth(httpx.Auth):
    """Label Studio's two kinds of tokens.

    A legacy token is sent as it is. A personal access token, which is a JSON Web Token, is exchanged for another that
    lasts minutes.
    """

    requires_response_body = True

    def __init__(self, address: str, key: str) -> None:
        self._address = address
        self._key = key
        self._access = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._key.count(".") != 2:
            request.headers["authorization"] = f"Token {self._key}"
            yield request
            return
        if not self._access:
            self._access = self._access_in((yield self._exchange()))
        request.headers["authorization"] = f"Bearer {self._access}"
        answered = yield request
        if answered.status_code == 401:
            self._access = self._access_in((yield self._exchange()))
            request.headers["authorization"] = f"Bearer {self._access}"
            yield request

    def _exchange(self) -> httpx.Request:
        return httpx.Request("POST", f"{self._address}/api/token/refresh/", json={"refresh": self._key})

    def _access_in(self, response: httpx.Response) -> str:
        try:
            return str(response.json()["access"])
        except (ValueError, KeyError, TypeError):
            raise _refused(response, self._address) from None


def _responded(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """What the server answers, also if it refuses. Raises PerpetuneError if it does not answer."""
    try:
        return client.request(method, path, **options)
    except httpx.HTTPError as fault:
        raise PerpetuneError(
            f"Label Studio does not answer: {str(fault) or type(fault).__name__}",
            where=str(client.base_url),
            do=f"start it, or set {URL_VARIABLE}; without a server use --out and --bring",
        ) from None


def _answered(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    """The JSON of the answer. Raises PerpetuneError."""
    address = str(client.base_url)
    response = _responded(client, method, path, **options)
    if response.is_error:
        raise _refused(response, address)
    try:
        return response.json()
    except ValueError:
        raise PerpetuneError("this is no Label Studio: it answers without JSON", where=address) from None


def _refused(response: httpx.Response, address: str) -> PerpetuneError:
    if response.status_code in (401, 403):
        return PerpetuneError(
            f"Label Studio refuses the token ({response.status_code})",
            where=address,
            do=f"set {KEY_VARIABLE} to a token from Account & Settings, of a user who may edit the project",
        )
    return PerpetuneError(f"Label Studio refuses ({response.status_code}): {response.text[:300]}", where=address)

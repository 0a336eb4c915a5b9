"""What a hub answers, right or wrong, is a model or one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from local_servers import QuietHandler, serve_until_exit
from safetensors.torch import load_file
from tiny_architectures import write_model

from perpetune.errors import PerpetuneError
from perpetune.model.base import load_base
from perpetune.model.weights import resolve
from perpetune.params import BaseParams

pytestmark = pytest.mark.slow

COMMIT = "c" * 40
BASE = BaseParams(model="hf:someone/model", revision="main")
Hub = Callable[[Callable[[BaseHTTPRequestHandler], None]], None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Start a hub that answers requests as told, and make it the one that is asked."""
    with ExitStack() as stack:

        def begin(answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
            class Handler(QuietHandler):
                def do_GET(self) -> None:
                    answer(self)

                def do_HEAD(self) -> None:
                    answer(self)

            address = serve_until_exit(stack, Handler)
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
            monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
            monkeypatch.setattr(
                "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
                address + "/{repo_id}/resolve/{revision}/{filename}",
            )

        yield begin


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"content-length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def closed(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


ANSWERS: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "an error": lambda handler: send(handler, 500, b"oops"),
    "too many requests": lambda handler: send(handler, 429, b"slow down"),
    "gated": lambda handler: send(handler, 401, b"no", X_Error_Code="GatedRepo"),
    "nothing there": lambda handler: send(handler, 404, b"no", X_Error_Code="RepoNotFound"),
    "a login page": lambda handler: send(handler, 200, b"<html>log in</html>", content_type="text/html"),
    "other JSON": lambda handler: send(handler, 200, b'["of", "another", "service"]', content_type="application/json"),
    "silence": closed,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_wrong_answer_is_one_clear_error(
    answer: Callable[[BaseHTTPRequestHandler], None], hub: Hub, tmp_path: Path
) -> None:
    hub(answer)
    with pytest.raises(
        PerpetuneError, match=r"base\.model: could not fetch someone/model@main from the Hugging Face hub"
    ):
        resolve(BASE, tmp_path)


def serving(folder: Path) -> Callable[[BaseHTTPRequestHandler], None]:
    """The hub's API, as far as a download of a repository needs it."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        if path.startswith("/api/models/someone/model/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": sha256(content).hexdigest()[:40]}
                for name, content in files.items()
            ]
            send(handler, 200, json.dumps(entries).encode(), content_type="application/json")
        elif path.startswith("/api/models/someone/model"):
            siblings = [{"rfilename": name} for name in files]
            info = {"id": "someone/model", "sha": COMMIT, "siblings": siblings}
            send(handler, 200, json.dumps(info).encode(), content_type="application/json")
        elif content := files.get(path.rpartition("/")[2]):
            send(handler, 200, content, ETag=f'"{sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)
        else:
            send(handler, 404, b"", X_Error_Code="EntryNotFound")

    return answer


def test_a_repository_without_safetensors_gives_its_bin_files(hub: Hub, tmp_path: Path) -> None:
    folder = write_model("llama", tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"a pickle of something else")
    hub(serving(folder))
    found = resolve(BASE, tmp_path)
    assert (found / "pytorch_model.bin").is_file()
    assert not (found / "training_args.bin").exists()
    assert load_base(BASE, tmp_path, "fp32").digest != sha256(b"").hexdigest()


def test_a_repository_without_weights_is_one_clear_error(hub: Hub, tmp_path: Path) -> None:
    folder = write_model("llama", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    hub(serving(folder))
    with pytest.raises(PerpetuneError, match="the model has no weights"):
        load_base(BASE, tmp_path, "fp32")


def test_a_repository_that_is_no_model_is_one_clear_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    (tmp_path / "model" / "adapter_model.safetensors").write_bytes(b"x")
    hub(serving(tmp_path / "model"))
    with pytest.raises(PerpetuneError, match=r"is not a model: it has no config\.json"):
        resolve(BASE, tmp_path)

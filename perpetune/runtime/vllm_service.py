"""vLLM as a service on this machine, from the separate environment that `make vllm` creates."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.params import Params
from perpetune.runtime.processes.supervisor import Service
from perpetune.runtime.stack import HOST
from perpetune.settings import checkout
from perpetune.workspace import Workspace

# On two cores SmolLM2 took about a minute; a large model that is loaded from disk and compiled takes longer.
START_SECONDS = 900.0
# Champion, previous champion, version on trial, and one that is being loaded: of each task.
MAX_LORAS = 4
# The ranks that vLLM supports.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, of a CPU's memory
    "HF_HUB_OFFLINE": "1",  # the base is a local folder
    "VLLM_NO_USAGE_STATS": "1",
}


def starts_vllm(workspace: Workspace) -> bool:
    """Whether `serve.engine` is vllm and no server elsewhere is set."""
    return workspace.params.serve.engine == "vllm" and workspace.settings.vllm_url is None


def vllm_service(workspace: Workspace, port: int, others: Sequence[Workspace] = ()) -> Service:
    """The vLLM service with the base model of params.yaml, in the precision of the training, for `others` too.

    Raises PerpetuneError if vLLM is not installed or the base model is missing.
    """
    python = vllm_python(workspace.settings.vllm_python)
    # Imported late, because it imports torch.
    from perpetune.model.base import device_name, torch_dtype
    from perpetune.model.weights import resolve

    dtype = str(torch_dtype(workspace.params.train.precision)).removeprefix("torch.")
    command = vllm_command(
        python,
        resolve(workspace.params.base, workspace.assets).resolve(),
        port,
        dtype=dtype,
        rank=max(highest_rank(each.params) for each in (workspace, *others)),
        loras=MAX_LORAS * (1 + len(others)),
        # On a CPU, compilation takes minutes.
        eager=device_name() == "cpu",
        more=shlex.split(workspace.settings.vllm_args),
    )
    page = f"http://{HOST}:{port}"
    return Service("vllm", command, port, f"{page}/health", f"{page}/v1", START_SECONDS)


def vllm_python(named: Path | None) -> Path:
    """The Python that has vLLM. Raises PerpetuneError where there is none."""
    root = checkout()
    python = named or (root / ".venv-vllm" / "bin" / "python" if root else None)
    if python is not None and python.is_file():
        return python
    missing = f": there is no {python}" if python else ""
    raise PerpetuneError(
        f"serve.engine is vllm, and vLLM is not installed{missing}",
        do=f"{'run `make vllm`, or ' if root else 'install vLLM into an environment of its own and '}"
        "set PERPETUNE_VLLM_PYTHON to its Python, or PERPETUNE_VLLM_URL to a server",
    )


def vllm_command(
    python: Path, base: Path, port: int, *, dtype: str, rank: int, eager: bool, more: list[str], loras: int = MAX_LORAS
) -> tuple[str, ...]:
    """The command line; the caller's environment variables take precedence, and `more` overrides earlier arguments."""
    variables = [f"{name}={value}" for name, value in _ENVIRONMENT.items() if name not in os.environ]
    return (
        *("env", *variables, str(python), "-m", "vllm.entrypoints.openai.api_server"),
        *("--host", HOST, "--port", str(port), "--model", str(base), "--dtype", dtype),
        *("--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(loras)),
        *("--generation-config", "vllm", "--disable-uvicorn-access-log"),
        # A version's own day in the template of its tools; only the gateway reaches the server.
        "--trust-request-chat-template",
        *(("--enforce-eager",) if eager else ()),
        *more,
    )


def highest_rank(params: Params) -> int:
    """The lowest supported rank for all adapters of these settings. Raises PerpetuneError if there is none."""
    wanted = max(params.train.lora.rank, params.tune.rank[1])
    for rank in _RANKS:
        if rank >= wanted:
            return rank
    raise PerpetuneError(
        f"vLLM serves adapters up to rank {_RANKS[-1]}, but the settings allow {wanted}",
        where="params.yaml: train.lora.rank, tune.rank",
        do="choose a lower rank",
    )

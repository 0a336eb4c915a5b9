"""vLLM as a service on this machine, from the environment of its own that `make vllm` lays out."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.params import Params
from perpetune.runtime.processes import Service
from perpetune.runtime.stack import HOST
from perpetune.settings import checkout
from perpetune.workspace import Workspace

# On two cores SmolLM2 took about a minute; a large model that is fetched from a disk and compiled takes longer.
START_SECONDS = 900.0
# What the base, champion, its predecessor and a version on trial need, with one more that is being loaded.
LOADED_AT_ONCE = 4
# vLLM takes these ranks alone.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, of a CPU's memory
    "HF_HUB_OFFLINE": "1",  # the base is a folder by now
    "VLLM_NO_USAGE_STATS": "1",
}


def starts_vllm(workspace: Workspace) -> bool:
    """Whether answers come from a vLLM that does not run elsewhere."""
    return workspace.params.serve.engine == "vllm" and workspace.settings.vllm_url is None


def vllm_service(workspace: Workspace, port: int) -> Service:
    """vLLM with the base model of params.yaml, in the precision that it is trained in.

    Raises PerpetuneError where vLLM is not installed, or the base model is missing.
    """
    python = vllm_python(workspace.settings.vllm_python)
    # Late, because it brings torch, and only these services need a base model.
    from perpetune.model.base import device_name, torch_dtype
    from perpetune.model.weights import resolve

    dtype = str(torch_dtype(workspace.params.train.precision)).removeprefix("torch.")
    command = vllm_command(
        python,
        resolve(workspace.params.base, workspace.assets).resolve(),
        port,
        dtype=dtype,
        rank=highest_rank(workspace.params),
        # On a CPU compiling takes minutes.
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
    python: Path, base: Path, port: int, *, dtype: str, rank: int, eager: bool, more: list[str]
) -> tuple[str, ...]:
    """What the caller's environment sets wins over what is set here, and `more` over the arguments before it."""
    variables = [f"{name}={value}" for name, value in _ENVIRONMENT.items() if name not in os.environ]
    return (
        *("env", *variables, str(python), "-m", "vllm.entrypoints.openai.api_server"),
        *("--host", HOST, "--port", str(port), "--model", str(base), "--dtype", dtype),
        *("--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(LOADED_AT_ONCE)),
        *("--generation-config", "vllm", "--disable-uvicorn-access-log"),
        *(("--enforce-eager",) if eager else ()),
        *more,
    )


def highest_rank(params: Params) -> int:
    """The least that vLLM takes and that holds every adapter which these settings can train. Raises PerpetuneError."""
    wanted = max(params.train.lora.rank, params.tune.rank[1])
    for rank in _RANKS:
        if rank >= wanted:
            return rank
    raise PerpetuneError(
        f"vLLM serves adapters up to rank {_RANKS[-1]}, and {wanted} is asked for",
        where="params.yaml: train.lora.rank, tune.rank",
        do="choose a lower rank",
    )

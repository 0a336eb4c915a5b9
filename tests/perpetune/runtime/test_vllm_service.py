from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from perpetune.errors import PerpetuneError
from perpetune.params import Params, load_params
from perpetune.runtime.stack import Ports, environment
from perpetune.runtime.vllm_service import highest_rank, starts_vllm, vllm_command, vllm_python, vllm_service
from perpetune.settings import Settings
from perpetune.workspace import Workspace

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")


def with_engine(engine: str) -> Params:
    return PARAMS.model_copy(update={"serve": PARAMS.serve.model_copy(update={"engine": engine})})


def test_vllm_is_started_only_if_it_is_the_engine_and_runs_nowhere_else(tmp_path: Path) -> None:
    def starts(engine: str, url: str | None) -> bool:
        return starts_vllm(Workspace(tmp_path, with_engine(engine), Settings(vllm_url=url)))

    assert starts("vllm", None)
    assert not starts("vllm", "http://gpu:8000")
    assert not starts("transformers", None)


def test_the_gateway_gets_the_address_of_vllm(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, with_engine("vllm"), Settings())
    assert environment(workspace, Ports(vllm=8123))["PERPETUNE_VLLM_URL"] == "http://127.0.0.1:8123"
    assert "PERPETUNE_VLLM_URL" not in environment(workspace, Ports())


def test_vllm_asks_for_a_key_that_only_our_services_know(tmp_path: Path) -> None:
    """Otherwise any web page could load and unload adapters there."""
    settings = (Settings(), Settings(), Settings(vllm_api_key=SecretStr("mine")))
    found = [environment(Workspace(tmp_path, with_engine("vllm"), each), Ports(vllm=8123)) for each in settings]
    keys = [each["VLLM_API_KEY"] for each in found]
    assert keys == [each["PERPETUNE_VLLM_API_KEY"] for each in found]
    assert keys[0] != keys[1] and len(keys[0]) > 30 and keys[2] == "mine"
    assert "VLLM_API_KEY" not in environment(Workspace(tmp_path, with_engine("vllm"), settings[0]), Ports())


def test_without_vllm_the_error_names_the_command(tmp_path: Path) -> None:
    missing = tmp_path / "python"
    workspace = Workspace(tmp_path, with_engine("vllm"), Settings(vllm_python=missing))
    with pytest.raises(PerpetuneError, match="make vllm") as caught:
        vllm_service(workspace, 8123)
    assert str(missing) in str(caught.value)
    missing.touch()
    assert vllm_python(missing) == missing


def test_the_vllm_command_enables_adapters_and_user_arguments_take_precedence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    command = vllm_command(
        Path("python"),
        Path("/models/base"),
        8123,
        dtype="bfloat16",
        rank=32,
        eager=True,
        more=["--max-model-len", "512"],
    )
    assert command[0] == "env"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in command
    assert not any("KVCACHE" in word for word in command), "what is set outside stays"
    words = " ".join(command)
    assert "--model /models/base --dtype bfloat16 --enable-lora --max-lora-rank 32" in words
    assert words.endswith("--enforce-eager --max-model-len 512")


@pytest.mark.parametrize(("trained", "tuned", "expected"), [(8, 4, 8), (8, 32, 32), (100, 4, 128)])
def test_every_adapter_that_can_be_trained_has_room(trained: int, tuned: int, expected: int) -> None:
    assert highest_rank(ranked(trained, tuned)) == expected


def test_a_rank_that_vllm_does_not_support_is_an_error() -> None:
    with pytest.raises(PerpetuneError, match="up to rank 512, but the settings allow 600"):
        highest_rank(ranked(600, 4))


def ranked(trained: int, tuned: int) -> Params:
    lora = PARAMS.train.lora.model_copy(update={"rank": trained})
    train = PARAMS.train.model_copy(update={"lora": lora})
    return PARAMS.model_copy(update={"train": train, "tune": PARAMS.tune.model_copy(update={"rank": (1, tuned)})})


def test_vllm_has_room_for_the_adapters_of_all_tasks(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.touch()
    (tmp_path / "config.json").touch()
    base = PARAMS.base.model_copy(update={"model": f"path:{tmp_path}", "revision": None})
    one, two = (
        Workspace(tmp_path, ranked(rank, 4).model_copy(update={"base": base}), Settings(vllm_python=python))
        for rank in (8, 64)
    )
    alone, together = (" ".join(vllm_service(one, 8123, others).command) for others in ((), (two,)))
    assert "--max-lora-rank 8 --max-loras 4 " in alone
    assert "--max-lora-rank 64 --max-loras 8 " in together
